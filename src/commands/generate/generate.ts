/** A text continued, or a conversation answered, by a model; beside another one for comparison. */

import type { Message } from '../../data/text/messages.js';
import { OnnxLoraError } from '../../errors.js';
import type { WorkOptions } from '../../onnx/write.js';
import type { OptionsOf, OptionTable } from '../../options/option.js';
import { resolveOptions } from '../../options/resolve.js';
import type { Generation } from './generation.js';
import { TextGenerator, type UsedProvider } from './generator.js';
import {
  type GeneratorOptions,
  generatorOptions,
  promptOptions,
  resolveSampling,
  type SamplingOptions,
  samplingOptions,
} from './options.js';
import type { Prompt } from './prompt.js';

/** Options of `generate`. */
export interface GenerateOptions
  extends GeneratorOptions,
    SamplingOptions,
    OptionsOf<typeof promptOptions>,
    WorkOptions {
  /** A conversation to answer, instead of `prompt`. */
  readonly messages?: readonly Message[] | undefined;
  /** Told the answer in pieces as they come. */
  readonly onToken?: ((piece: string) => void) | undefined;
}

/** An answer of a model. */
export interface Answer extends Omit<Generation, 'ids'> {
  /** Path of the model. */
  readonly model: string;
  /** The adapter that was used; absent for the base model. */
  readonly adapter?: string;
  /** Whether the model's key-value cache was used. */
  readonly cache: boolean;
}

/** The answer, and the question. */
export interface GenerateResult extends Answer {
  /** The text that was continued. */
  readonly prompt?: string;
  /** The conversation that was answered. */
  readonly messages?: readonly Message[];
  /** Execution provider as asked for, and as used. */
  readonly provider: UsedProvider;
  /** The answer of `compare`. */
  readonly comparison?: Answer;
}

/**
 * Lets the model at `path` continue a text or answer a conversation.
 * @throws OnnxLoraError as {@link TextGenerator}; `invalid-argument` unless there is one of `prompt` and
 * `messages`
 * @example
 * ```ts
 * import { generate } from 'onnx-lora';
 *
 * const { text, tokens } = await generate('llama.onnx', {
 *   tokenizer: 'llama',
 *   prompt: 'Once upon a time',
 *   maxNewTokens: 32,
 * });
 * console.log(text, tokens.generated);
 * ```
 */
export async function generate(path: string, options: GenerateOptions): Promise<GenerateResult> {
  const { signal, onProgress, onNote, onToken, messages, ...plain } = options;
  const table = { ...generatorOptions, ...samplingOptions, ...promptOptions };
  const { prompt, compare } = resolveOptions(table, plain, 'generate');
  resolveSampling(pick(samplingOptions, plain));
  const asked = promptOf(options);
  const { answer, provider } = await answerOf(path, asked, options);
  const other = { ...options, adapter: undefined, onToken: undefined };
  const base = compare === undefined ? undefined : await answerOf(compare, asked, other);
  return {
    ...answer,
    ...(prompt === undefined ? { messages: messages! } : { prompt }),
    provider,
    ...(base ? { comparison: base.answer } : {}),
  };
}

function promptOf({ prompt, messages }: GenerateOptions): Prompt {
  const given = [prompt, messages].filter((one) => one !== undefined);
  if (given.length === 1) return given[0]!;
  throw new OnnxLoraError(
    'invalid-argument',
    `generate takes one of \`prompt\` and \`messages\`, found ${given.length === 0 ? 'none' : 'both'}`,
  );
}

async function answerOf(path: string, prompt: Prompt, options: GenerateOptions) {
  const { signal, onProgress, onNote, onToken: onText } = options;
  const opened = { ...pick(generatorOptions, options), onNote };
  const generator = await TextGenerator.open(path, opened);
  try {
    const how = { ...pick(samplingOptions, options), signal, onProgress, onText };
    const { ids: _, ...generation } = await generator.complete(prompt, how);
    return { answer: answerWith(path, generator, generation), provider: generator.provider };
  } finally {
    await generator.release();
  }
}

/** The options that a table describes. */
export function pick<T extends OptionTable, O extends object>(table: T, options: O) {
  const own = Object.entries(options).filter(([key]) => Object.hasOwn(table, key));
  return Object.fromEntries(own) as Pick<O, keyof O & keyof T>;
}

/** An answer with the model, adapter and way that it comes from. */
export function answerWith(
  model: string,
  { adapter, usesCache: cache }: TextGenerator,
  generation: Omit<Generation, 'ids'>,
): Answer {
  return { model, ...(adapter === undefined ? {} : { adapter }), ...generation, cache };
}
