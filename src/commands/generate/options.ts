/** Options of `generate` and their defaults. */

import { OnnxLoraError } from '../../errors.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import type { GuardSetting } from '../../training/options.js';
import { checkThreads, checkWhole } from '../../training/options.js';

/** How the next token is chosen, and when to stop. */
export interface SamplingOptions {
  /** Default 0: always the likeliest token. Above 0, logits are divided by it and a token is drawn. */
  readonly temperature?: number | undefined;
  /** Draws from this many of the likeliest tokens. Default 0: from all. */
  readonly topK?: number | undefined;
  /** Draws from the likeliest tokens that together have this probability. Default 1: from all. */
  readonly topP?: number | undefined;
  /** Above 1, tokens that the text has already become less likely. Default 1. */
  readonly repetitionPenalty?: number | undefined;
  /** Default 0. */
  readonly seed?: number | undefined;
  /** Default 256. */
  readonly maxNewTokens?: number | undefined;
  /** Texts that end the answer; they are not part of it. */
  readonly stop?: readonly string[] | undefined;
}

/** What is opened once and answers many prompts. */
export interface GeneratorOptions extends GuardSetting {
  /** A `tokenizer.json`, or a folder with one. Default: the one beside the model. */
  readonly tokenizer?: string | undefined;
  /** Adapters for the slots of the model, as `NAME=FILE`. The first one is in use at the beginning. */
  readonly adapter?: readonly string[] | undefined;
  /** Tokens that end an answer. Default: those of generation_config.json, and the tokenizer's. */
  readonly eos?: readonly string[] | undefined;
  /** Default auto. */
  readonly provider?: ProviderName | 'auto' | undefined;
  /** CPU threads; default one a core. */
  readonly threads?: number | undefined;
  /** false: compute the whole text anew for each token, although the model has a key-value cache. */
  readonly cache?: boolean | undefined;
  /** Remarks for people. */
  readonly onNote?: ((text: string) => void) | undefined;
}

export type ResolvedSampling = {
  readonly [K in keyof SamplingOptions]-?: NonNullable<SamplingOptions[K]>;
};

const DEFAULTS: ResolvedSampling = {
  ...{ temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1, seed: 0 },
  ...{ maxNewTokens: 256, stop: [] },
};

/** @throws OnnxLoraError `invalid-argument` naming the option */
export function resolveSampling(options: SamplingOptions): ResolvedSampling {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const resolved: ResolvedSampling = { ...DEFAULTS, ...Object.fromEntries(given) };
  const { temperature, topK, topP, repetitionPenalty, maxNewTokens, stop } = resolved;
  checkWhole({ maxNewTokens }, 1);
  checkWhole({ topK }, 0);
  if (!(temperature >= 0 && Number.isFinite(temperature))) {
    throw invalid(`temperature is ${temperature}, expected 0 or more`);
  }
  if (!(topP > 0 && topP <= 1)) throw invalid(`topP is ${topP}, expected above 0 and up to 1`);
  if (!(repetitionPenalty > 0 && Number.isFinite(repetitionPenalty))) {
    throw invalid(`repetitionPenalty is ${repetitionPenalty}, expected above 0`);
  }
  if (stop.includes('')) throw invalid('stop holds an empty text, which ends every answer at once');
  return resolved;
}

export interface NamedAdapter {
  readonly name: string;
  readonly path: string;
}

/**
 * `NAME=FILE`
 * @throws OnnxLoraError `invalid-argument`
 */
export function namedAdapters(given: readonly string[] = []): NamedAdapter[] {
  return given.map((text) => {
    const [, name, path] = /^([^=]+)=(.+)$/s.exec(text) ?? [];
    if (name !== undefined && path !== undefined) return { name, path };
    throw new OnnxLoraError(
      'invalid-argument',
      `adapter is ${JSON.stringify(text)}, expected NAME=FILE`,
      { hint: 'For example: german=german.safetensors' },
    );
  });
}

export { checkThreads };

function invalid(message: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message);
}
