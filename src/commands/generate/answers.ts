/** Answers of a decoder to prompts: how they end, and how much text it has room for. */
import { dirname } from 'node:path';
import type { TextTokenizer } from '../../data/text/tokenizer.js';
import { OnnxLoraError } from '../../errors.js';
import type { WorkOptions } from '../../onnx/write.js';
import { cacheProblem } from './cache-check.js';
import type { Decoder } from './decoder.js';
import { type Generation, generation } from './generation.js';
import { foldersOf, type ModelConfig, modelConfig } from './model-config.js';
import { type GeneratorOptions, resolveSampling, type SamplingOptions } from './options.js';
import { type Prompt, Prompts } from './prompt.js';

export class Answers {
  private readonly prompts: Prompts;
  private readonly config: ModelConfig;
  private count = 0;
  /** Whether the cache was compared with whole texts. */
  private isChecked = false;

  /** @param model its path */
  constructor(
    private readonly decoder: Decoder,
    private readonly tokenizer: TextTokenizer,
    private readonly model: string,
    private readonly options: Pick<GeneratorOptions, 'eos' | 'guard' | 'onNote'>,
  ) {
    this.prompts = new Prompts(tokenizer, options.onNote);
    this.config = modelConfig([...foldersOf(model), dirname(tokenizer.label)]);
  }

  /** As `stream` of {@link TextGenerator}. */
  async *stream(
    prompt: Prompt,
    { signal, onProgress, ...options }: SamplingOptions & WorkOptions,
  ): AsyncGenerator<string, Generation> {
    const sampling = resolveSampling(options);
    const ends = this.endTokens();
    const ids = this.prompts.encode(prompt);
    const context = this.contextFor(ids);
    await this.checkCache(ids);
    const eos = new Set([...ends, ...this.prompts.endOfAnswer(prompt)]);
    const turn = this.count++;
    const request = { prompt: ids, sampling, eos, context, turn, signal, onProgress };
    return yield* generation(this.decoder, this.tokenizer, request);
  }

  /** @throws OnnxLoraError `invalid-argument` where the tokenizer has no chat template */
  requireTemplate(): void {
    this.prompts.requireTemplate();
  }

  private endTokens(): readonly number[] {
    const { eos } = this.options;
    if (eos) return eos.map((token) => this.endToken(token));
    const own = this.tokenizer.config.eos_token;
    const id = typeof own === 'string' ? this.tokenizer.tokenId(own) : undefined;
    return [...this.config.eos, ...(id === undefined ? [] : [id])];
  }

  private endToken(token: string): number {
    const id = /^\d+$/.test(token) ? Number(token) : this.tokenizer.tokenId(token);
    if (id !== undefined) return id;
    throw new OnnxLoraError(
      'invalid-argument',
      `\`eos\` is ${JSON.stringify(token)}, which is not a token of ${this.tokenizer.label}`,
      { hint: 'Name one token, or its number. Longer texts end answers with `stop`.' },
    );
  }

  /** Most tokens of prompt and answer. */
  private contextFor(ids: readonly number[]): number {
    const { vocabulary, positions } = this.decoder;
    const beyond = ids.find((id) => id >= (vocabulary ?? Number.POSITIVE_INFINITY));
    if (beyond !== undefined) {
      throw new OnnxLoraError(
        'invalid-argument',
        `${this.tokenizer.label} gives token ${beyond}, the vocabulary of ${this.model} has ${vocabulary}`,
        { hint: 'Give the tokenizer that the model was trained with.' },
      );
    }
    const known = [positions, this.config.context].filter((limit) => limit !== undefined);
    const context = Math.min(...known, ...(known.length > 0 ? [] : this.tokenizerLimit()));
    if (ids.length < context) return context;
    throw new OnnxLoraError(
      'invalid-argument',
      `the prompt has ${ids.length} tokens, ${this.model} has ${context} positions for prompt and answer`,
      { hint: 'Shorten it, or begin a new conversation.' },
    );
  }

  private tokenizerLimit(): readonly number[] {
    const { maxLength } = this.tokenizer;
    return maxLength === undefined ? [] : [maxLength];
  }

  /** Once: a cache that is wrong writes fluent nonsense. */
  private async checkCache(ids: readonly number[]): Promise<void> {
    if (this.isChecked || !this.decoder.usesCache || this.options.guard === false) return;
    this.isChecked = true;
    const problem = await cacheProblem(this.decoder, ids);
    if (problem === undefined) return;
    this.decoder.withoutCache();
    this.options.onNote?.(
      `the key-value cache is not used, every token computes the whole text: ${problem}`,
    );
  }
}
