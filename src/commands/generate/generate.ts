/** A text continued, or a conversation answered, by a model; beside another one for comparison. */

import type { Message } from '../../data/text/messages.js';
import { OnnxLoraError } from '../../errors.js';
import type { WorkOptions } from '../../onnx/write.js';
import type { Generation } from './generation.js';
import { TextGenerator, type UsedProvider } from './generator.js';
import type { GeneratorOptions, SamplingOptions } from './options.js';
import type { Prompt } from './prompt.js';

export interface GenerateOptions extends GeneratorOptions, SamplingOptions, WorkOptions {
  /** A text to continue. */
  readonly prompt?: string | undefined;
  /** A conversation to answer, instead of `prompt`. */
  readonly messages?: readonly Message[] | undefined;
  /** Another model, which answers too. */
  readonly compare?: string | undefined;
  /** Told the answer in pieces as they come. */
  readonly onToken?: ((piece: string) => void) | undefined;
}

/** An answer of a model. */
export interface Answer extends Omit<Generation, 'ids'> {
  readonly model: string;
  readonly adapter?: string;
  /** Whether the model's key-value cache was used. */
  readonly cache: boolean;
}

export interface GenerateResult extends Answer {
  readonly prompt?: string;
  readonly messages?: readonly Message[];
  readonly provider: UsedProvider;
  /** What `compare` answers. */
  readonly comparison?: Answer;
}

/**
 * Lets the model at `path` continue a text or answer a conversation.
 * @throws OnnxLoraError as {@link TextGenerator}; `invalid-argument` unless there is one of `prompt` and
 * `messages`
 */
export async function generate(path: string, options: GenerateOptions): Promise<GenerateResult> {
  const { prompt, messages, compare } = options;
  const asked = promptOf(options);
  const { answer, provider } = await answerOf(path, asked, options);
  const other = compare === undefined ? undefined : { ...options, adapter: undefined };
  const base = other && (await answerOf(compare!, asked, { ...other, onToken: undefined }));
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
  const generator = await TextGenerator.open(path, options);
  try {
    const { onToken: onText } = options;
    const { ids: _, ...generation } = await generator.complete(prompt, { ...options, onText });
    return { answer: answerWith(path, generator, generation), provider: generator.provider };
  } finally {
    await generator.release();
  }
}

/** An answer with the model, adapter and way that it comes from. */
export function answerWith(
  model: string,
  { adapter, usesCache: cache }: TextGenerator,
  generation: Omit<Generation, 'ids'>,
): Answer {
  return { model, ...(adapter === undefined ? {} : { adapter }), ...generation, cache };
}
