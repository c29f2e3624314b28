/** A language model that is opened once and answers many prompts. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { TextTokenizer } from '../../data/text/tokenizer.js';
import { OnnxLoraError } from '../../errors.js';
import type { Model } from '../../onnx/model.js';
import { openModel } from '../../onnx/parse.js';
import type { WorkOptions } from '../../onnx/write.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import { resolveProvider } from '../../runtime/providers.js';
import { locateModel, withTokenizer } from '../model-folder.js';
import { Answers } from './answers.js';
import { Decoder } from './decoder.js';
import type { Generation } from './generation.js';
import { foldersOf } from './model-config.js';
import {
  type GeneratorOptions,
  namedAdapters,
  resolveGenerator,
  type SamplingOptions,
} from './options.js';
import type { Prompt } from './prompt.js';
import { type AdapterRunner, openRunner } from './runner.js';

/** Provider as asked for, and as used. */
export interface UsedProvider {
  /** As asked for. */
  readonly requested: ProviderName | 'auto';
  /** The one that runs the model. */
  readonly used: ProviderName;
}

/** Options of an answer that is wanted as a whole. */
export interface CompleteOptions extends SamplingOptions, WorkOptions {
  /** Told the answer in pieces as they come. */
  readonly onText?: ((piece: string) => void) | undefined;
}

/**
 * A language model with its tokenizer, opened once for many prompts. A text is continued, messages are
 * answered by the tokenizer's chat template. A prompt that begins with the prompt and answer before it only
 * computes what is new, where the model has a key-value cache.
 *
 * The model runs in the caller's process, and ONNX Runtime maps external data: a data file that is cut off
 * while the model is open ends the process (SIGBUS). Nothing is written meanwhile that could be lost.
 * @example
 * ```ts
 * import { TextGenerator } from 'onnx-lora';
 *
 * const model = await TextGenerator.open('llama.onnx', { tokenizer: 'llama' });
 * for await (const piece of model.stream('Once upon a time', { maxNewTokens: 32 })) {
 *   process.stdout.write(piece);
 * }
 * const { text } = await model.complete([{ role: 'user', content: 'Hello!' }], {
 *   maxNewTokens: 32,
 * });
 * console.log(text);
 * await model.release();
 * ```
 */
export class TextGenerator {
  private constructor(
    /** The tokenizer of the model. */
    readonly tokenizer: TextTokenizer,
    /** Execution provider as asked for, and as used. */
    readonly provider: UsedProvider,
    private readonly runner: AdapterRunner,
    private readonly decoder: Decoder,
    private readonly answers: Answers,
  ) {}

  /**
   * @throws OnnxLoraError `file-not-found` for a tokenizer that is missing; `unsupported` for a model that
   * does not continue texts; `invalid-argument` for adapters where the model has no slots; `provider`,
   * `runtime`, and those of reading
   */
  static async open(model: string, given: GeneratorOptions = {}): Promise<TextGenerator> {
    const located = locateModel(model, given.onNote);
    const path = located.file;
    const resolved = { ...resolveGenerator(given), onNote: given.onNote };
    const options = withTokenizer(resolved, located);
    namedAdapters(options.adapter);
    const opened = openModel(path);
    try {
      const tokenizer = TextTokenizer.open(options.tokenizer ?? tokenizerBeside(path));
      const { requested, used, reason } = await resolveProvider(options.provider);
      if (requested === 'auto' && used !== 'cpu')
        options.onNote?.(`provider auto: ${used} (${reason})`);
      const runner = await openRunner(path, opened, { ...options, provider: used });
      try {
        const decoder = decoderOf(opened, runner, used, options);
        noteForeignTokens(tokenizer, decoder, path, options.onNote);
        const answers = new Answers(decoder, tokenizer, path, options);
        return new TextGenerator(tokenizer, { requested, used }, runner, decoder, answers);
      } catch (error) {
        await runner.release();
        throw error;
      }
    } finally {
      opened.close();
    }
  }

  /** The adapters that can be used. */
  get adapters(): readonly string[] {
    return this.runner.adapters;
  }

  /** The adapter in use; undefined for the base model. */
  get adapter(): string | undefined {
    return this.runner.adapter;
  }

  /** Whether tokens are computed once and kept in the model's key-value cache. */
  get usesCache(): boolean {
    return this.decoder.usesCache;
  }

  /**
   * Uses another adapter from now on, or with undefined the base model.
   * @throws OnnxLoraError `no-adapter`
   */
  use(adapter: string | undefined): void {
    if (adapter !== undefined && !this.adapters.includes(adapter)) {
      throw new OnnxLoraError(
        'no-adapter',
        `no adapter ${JSON.stringify(adapter)} is loaded, there is: ${this.adapters.join(', ') || 'none'}`,
        { hint: 'Load it with the model: `adapter` NAME=PATH' },
      );
    }
    this.runner.adapter = adapter;
    this.decoder.forget();
  }

  /**
   * The answer in pieces as they come; its end returns what is known of it.
   * @throws OnnxLoraError `invalid-argument` for options out of range, a prompt with tokens that the model
   * does not have, or too many of them; `runtime`, `diverged`, `aborted`
   */
  async *stream(
    prompt: Prompt,
    options: SamplingOptions & WorkOptions = {},
  ): AsyncGenerator<string, Generation> {
    return yield* this.answers.stream(prompt, options);
  }

  /** @throws OnnxLoraError `invalid-argument` where the tokenizer has no chat template */
  requireChat(): void {
    this.answers.requireTemplate();
  }

  /** The whole answer; throws as `stream` does. */
  async complete(
    prompt: Prompt,
    { onText, ...options }: CompleteOptions = {},
  ): Promise<Generation> {
    const pieces = this.stream(prompt, options);
    for (;;) {
      const { done, value } = await pieces.next();
      if (done) return value;
      onText?.(value);
    }
  }

  /** Frees the model; may be called again. */
  release(): Promise<void> {
    return this.runner.release();
  }
}

/** Ids that are in range are not an error, and the text that comes of them looks like one that was not trained. */
function noteForeignTokens(
  { lastId, label }: TextTokenizer,
  { vocabulary }: Decoder,
  path: string,
  onNote: GeneratorOptions['onNote'],
): void {
  if (vocabulary === undefined || lastId < vocabulary) return;
  onNote?.(
    `${label} has tokens up to ${lastId}, and the vocabulary of ${path} ends at ${vocabulary - 1}: it may be another model's`,
  );
}

function decoderOf(
  model: Model,
  runner: AdapterRunner,
  provider: ProviderName,
  { cache, onNote }: GeneratorOptions,
): Decoder {
  const decoder = Decoder.of(model, runner, runner.own);
  if (provider === 'webgpu' && decoder.takesCache) throw noEmptyCache(model);
  if (cache === false) decoder.withoutCache();
  else if (decoder.takesCache && !decoder.usesCache) {
    onNote?.('no outputs of the model continue its cache: every token computes the whole text');
  }
  return decoder;
}

/** An empty tensor ends the process there. */
function noEmptyCache({ source }: Model): OnnxLoraError {
  return new OnnxLoraError(
    'provider',
    `${source.label} takes a key-value cache, which is empty at first, and WebGPU takes no empty tensors`,
    { hint: 'Set `provider` to cpu.' },
  );
}

/** @throws OnnxLoraError `file-not-found` */
export function tokenizerBeside(path: string): string {
  const folder = foldersOf(path).find((one) => existsSync(join(one, 'tokenizer.json')));
  if (folder !== undefined) return folder;
  throw new OnnxLoraError('file-not-found', `no tokenizer.json lies beside ${path}`, {
    hint: "Name the model's own with `tokenizer`: a tokenizer.json, or the folder that holds it.",
  });
}
