/** Options of `generate` and their defaults. */
import * as v from 'valibot';
import { OnnxLoraError } from '../../errors.js';
import { seedOption } from '../../options/common.js';
import {
  type Condition,
  type OptionRules,
  type OptionsOf,
  option,
  type ResolvedOf,
  restricted,
} from '../../options/option.js';
import { resolveOptions } from '../../options/resolve.js';
import {
  choice,
  list,
  notNegative,
  path,
  positive,
  text,
  toggle,
  whole,
} from '../../options/schemas.js';
import { providerNames } from '../../runtime/provider-names.js';

/** @param key that says nothing at this value either way */
function ofDraws(key?: string, usual?: number): OptionRules {
  const isDrawn: Condition = {
    holds: (options) => options.temperature !== 0 || (key !== undefined && options[key] === usual),
    otherwise: 'at `temperature` 0, which always takes the likeliest token',
    remedy: 'give a temperature: 0.7, for example',
    text: 'with `temperature` above 0',
  };
  return { when: [isDrawn] };
}

/** Options of the choice of the next token, and of when to stop. */
export const samplingOptions = {
  /** Most tokens of an answer; default 256. */
  maxNewTokens: option(whole(1), {
    group: 'Sampling',
    value: 'N',
    default: 256,
    summary: 'most tokens of an answer',
    example: '--max-new-tokens 64',
  }),
  /** Default 0: always the likeliest token. Above 0, logits are divided by it and a token is drawn. */
  temperature: option(notNegative, {
    group: 'Sampling',
    value: 'T',
    default: 0,
    summary: '0 always takes the likeliest token; above, tokens are drawn, 1 by their probability',
    example: '--temperature 0.7 --seed 1',
  }),
  /** Draws from this many of the likeliest tokens. Default 0: from all. */
  topK: option(whole(0), {
    group: 'Sampling',
    value: 'K',
    default: 0,
    ...ofDraws('topK', 0),
    summary: 'draws from the K likeliest tokens; 0 from all',
    example: '--temperature 0.7 --top-k 40',
  }),
  /** Draws from the likeliest tokens that together have this probability. Default 1: from all. */
  topP: option(v.pipe(positive, v.maxValue(1, 'a probability above 0, up to 1')), {
    group: 'Sampling',
    value: 'P',
    default: 1,
    ...ofDraws('topP', 1),
    summary: 'draws from the likeliest tokens that together have probability P',
    example: '--temperature 0.7 --top-p 0.9',
  }),
  /** Above 1, tokens that the text has already become less likely. Default 1. */
  repetitionPenalty: option(positive, {
    group: 'Sampling',
    value: 'X',
    default: 1,
    summary: 'above 1, tokens that are in the text already become less likely',
    example: '--repetition-penalty 1.1',
  }),
  /** Texts that end the answer; they are not part of it. */
  stop: option(list(text), {
    group: 'Sampling',
    value: 'TEXT',
    summary: 'a text that ends the answer',
    example: '--stop "###"',
  }),
  ...restricted(seedOption, ofDraws()),
};

/** The model, opened once for many prompts. */
export const generatorOptions = {
  /** A `tokenizer.json`, or a folder with one. Default: the one beside the model. */
  tokenizer: option(path, {
    group: 'Prompt',
    value: 'PATH',
    defaultText: 'the one beside the model',
    summary: "the model's tokenizer.json, or the folder that holds it",
    example: '--tokenizer llama/',
  }),
  /** Adapters for the slots of the model, as `NAME=PATH`. The first one is in use at the beginning. */
  adapter: option(list(text), {
    group: 'Adapters',
    value: 'NAME=PATH',
    summary:
      'an adapter for a model with slots; the first one is used, /adapter in a chat changes it',
    example: '--adapter german=german.safetensors --adapter formal=peft/',
  }),
  /** Tokens that end an answer. Default: those of generation_config.json, and the tokenizer's. */
  eos: option(list(text), {
    group: 'Sampling',
    value: 'TOKEN',
    defaultText: 'those of the model and the tokenizer',
    summary: 'a token that ends the answer, by name or number',
    example: '--eos "<|im_end|>"',
  }),
  /** false: compute the whole text anew for each token, although the model has a key-value cache. */
  cache: option(toggle, {
    group: 'General',
    default: true,
    summary: 'compute the whole text for each token, although the model has a key-value cache',
    example: '--no-cache',
  }),
  /** false: do not compare the cache with whole texts, nor a model with slots with its base. */
  guard: option(toggle, {
    group: 'Check',
    default: true,
    summary: 'do not compare the cache with whole texts, nor a model with slots with its base',
    example: '--no-guard',
  }),
  /** Default auto. */
  provider: option(choice(['auto', ...providerNames]), {
    group: 'General',
    value: 'NAME',
    default: 'auto',
    summary: 'what runs the model; auto measures what is fastest here',
    example: '--provider cuda',
  }),
  /** CPU threads; default one a core. */
  threads: option(whole(1, 1024), {
    group: 'General',
    value: 'N',
    defaultText: 'all cores',
    summary: 'CPU threads',
    example: '--threads 2',
  }),
};

/** Options of the question. */
export const promptOptions = {
  /** A text to continue. */
  prompt: option(text, {
    group: 'Prompt',
    value: 'TEXT',
    summary: 'a text to continue; with `chat` a message to answer',
    example: '--prompt "Once upon a time"',
  }),
  /** Another model, which answers too. */
  compare: option(path, {
    group: 'Prompt',
    value: 'BASE',
    summary: 'another model, which answers too: beside it on a wide terminal, else below',
    example: '--compare llama.onnx',
  }),
};

/** Options of a prompt: the choice of the next token, and when to stop. */
export interface SamplingOptions
  extends OptionsOf<typeof seedOption>,
    OptionsOf<typeof samplingOptions> {}
export type ResolvedSampling = ResolvedOf<typeof samplingOptions>;

/** Options of opening a model that writes texts. */
export interface GeneratorOptions extends OptionsOf<typeof generatorOptions> {
  /** Remarks for people. */
  readonly onNote?: ((text: string) => void) | undefined;
}
export type ResolvedGenerator = ResolvedOf<typeof generatorOptions>;

/** @throws OnnxLoraError `invalid-argument` naming the option */
export function resolveSampling(options: SamplingOptions): ResolvedSampling {
  return resolveOptions(samplingOptions, options, 'generate');
}

/** @throws OnnxLoraError `invalid-argument` naming the option */
export function resolveGenerator(options: GeneratorOptions): ResolvedGenerator {
  const { onNote: _, ...rest } = options;
  return resolveOptions(generatorOptions, rest, 'generate');
}

export interface NamedAdapter {
  readonly name: string;
  readonly path: string;
}

/**
 * `NAME=PATH`
 * @throws OnnxLoraError `invalid-argument`
 */
export function namedAdapters(given: readonly string[] = []): NamedAdapter[] {
  return given.map((one) => {
    const [, name, file] = /^([^=]+)=(.+)$/s.exec(one) ?? [];
    if (name !== undefined && file !== undefined) return { name, path: file };
    throw new OnnxLoraError(
      'invalid-argument',
      `\`adapter\` is ${JSON.stringify(one)}, expected NAME=PATH`,
      { hint: 'For example: german=german.safetensors' },
    );
  });
}
