/** Options of a training run: how long, by which steps, what is kept of it. */
import * as v from 'valibot';
import type { noteOption, workOptions } from '../onnx/write-options.js';
import { seedOption } from '../options/common.js';
import { option, type ResolvedOf } from '../options/option.js';
import {
  choice,
  list,
  notNegative,
  number,
  path,
  positive,
  share,
  text,
  toggle,
  union,
  whole,
} from '../options/schemas.js';
import { providerOption, threadsOption } from '../runtime/options.js';
import { MAX_LOSS_SCALE } from './loss-scale.js';
import { batchSizeOption, guardOption, lossSettings } from './loss-settings.js';
import { lossTrainOptions } from './losses/index.js';
import { optimizerChoice, ownOptimizerOptions } from './optimizers/index.js';
import { schedules } from './schedule.js';

/** Samples besides the data, and their order. */
export const sampleOptions = {
  /** Samples to evaluate on, which are not trained on. */
  evalData: option(path, {
    group: 'Data',
    value: 'FILE',
    summary: 'samples to evaluate on, which are not trained on',
    example: '--eval-data test.safetensors',
  }),
  /** false: samples in the order of the file. */
  shuffle: option(toggle, {
    group: 'Data',
    default: true,
    summary: 'take the samples in the order of the file',
    example: '--no-shuffle',
  }),
};

/** Length of a run. */
export const lengthOptions = {
  /** Passes over the data; default 3. */
  epochs: option(positive, {
    group: 'Training',
    value: 'N',
    default: 3,
    notWith: ['steps'],
    summary: 'passes over the data',
    example: '--epochs 10',
  }),
  /** Updates, instead of `epochs`. */
  steps: option(whole(1), {
    group: 'Training',
    value: 'N',
    summary: 'number of updates, instead of epochs',
    example: '--steps 500',
  }),
  ...batchSizeOption,
  /** Batches that make one update; default 1. */
  accumulate: option(whole(1), {
    group: 'Training',
    value: 'N',
    default: 1,
    summary: 'gradient accumulation: batches per update',
    example: '--accumulate 4',
  }),
};

/** The backward pass of half precision is float32, where nothing that training has a use for is lost. */
const scaleOf = (given: string | number) =>
  given === 'auto' || given === 'off' ? 1 : Number(given);

function isScale(given: string | number): boolean {
  const scale = scaleOf(given);
  return scale >= 1 && scale <= MAX_LOSS_SCALE && Number.isInteger(Math.log2(scale));
}

const SCALES = 'auto, off or a power of two from 1 to 2^120';

/** Other numbers would round the gradient. */
const lossScale = v.pipe(
  union([text, number], SCALES),
  v.check(isScale, SCALES),
  v.transform(scaleOf),
);

/** The optimizer and its steps. */
export const stepOptions = {
  ...optimizerChoice,
  ...ownOptimizerOptions,
  /** LoRA+: the learning rate of B, and of biases, over that of A; default 1. */
  lrRatio: option(positive, {
    group: 'Optimizer',
    value: 'RATIO',
    default: 1,
    summary: 'LoRA+: learning rate of B, and of biases, over that of A',
    example: '--lr-ratio 16 --lr 1e-4',
  }),
  /** Default linear. */
  schedule: option(choice(schedules), {
    group: 'Optimizer',
    value: 'NAME',
    default: 'linear',
    summary: 'learning rate schedule',
    example: '--schedule cosine',
  }),
  /** Steps in which the learning rate rises from zero; default 0. */
  warmup: option(whole(0), {
    group: 'Optimizer',
    value: 'STEPS',
    default: 0,
    summary: 'warm-up steps, in which the learning rate rises from zero',
    example: '--warmup 100',
  }),
  /** The largest norm of the gradient; default 1, 0 for no limit. */
  clip: option(notNegative, {
    group: 'Optimizer',
    value: 'NORM',
    default: 1,
    summary: 'the largest norm of the whole gradient; 0 for no limit',
    example: '--clip 0',
  }),
  /** The share of what adapters read that is dropped, at random; default 0. */
  dropout: option(share, {
    group: 'Optimizer',
    value: 'SHARE',
    default: 0,
    summary: 'dropout on the inputs of the adapters',
    example: '--dropout 0.05',
  }),
  /**
   * A power of two that the loss is multiplied by for the backward pass, and the gradient divided by after it:
   * halved where the gradient overflows, whose update is left out, and doubled after 2000 updates that did not.
   * Default `auto`, which is `off`: the backward pass is float32.
   */
  lossScale: option(lossScale, {
    group: 'Optimizer',
    value: 'N|auto|off',
    default: 'auto',
    summary:
      'a power of two that the loss is multiplied by for the backward pass, to begin with: an overflow halves it and skips the update, 2000 updates without one double it',
    example: '--loss-scale 1024',
  }),
};

/** Evaluation during a run. */
export const evaluationOptions = {
  /** Steps between evaluations; default an epoch. */
  evalEvery: option(whole(1), {
    group: 'Evaluation',
    value: 'STEPS',
    needs: ['evalData'],
    defaultText: 'an epoch',
    summary: 'steps between evaluations',
    example: '--eval-data test.npz --eval-every 100',
  }),
  /** Stop after so many evaluations without a better loss. */
  earlyStop: option(whole(1), {
    group: 'Evaluation',
    value: 'N',
    needs: ['evalData'],
    summary: 'stop after so many evaluations without a better loss',
    example: '--eval-data test.npz --early-stop 3',
  }),
  /** Write the adapters of the best evaluation instead of the last. */
  keepBest: option(toggle, {
    group: 'Evaluation',
    needs: ['evalData'],
    default: false,
    summary: 'write the adapters of the best evaluation instead of the last ones',
    example: '--eval-data test.npz --keep-best',
  }),
};

/** Looks at the model's writing in the course of a run. */
export const writingOptions = {
  /**
   * Texts that the model continues before the first step, every `sampleEvery` steps and at the end, always by
   * the likeliest token; where the data are conversations, messages that it answers.
   */
  samplePrompt: option(list(text), {
    group: 'Evaluation',
    value: 'TEXT',
    summary:
      'a text that the model continues as it learns, or a message that it answers where the data are conversations',
    example: '--sample-prompt "Once upon a time" --sample-every 50',
  }),
  /** Steps between such samples; default an epoch. */
  sampleEvery: option(whole(1), {
    group: 'Evaluation',
    value: 'STEPS',
    needs: ['samplePrompt'],
    defaultText: 'an epoch',
    summary: 'steps between two looks at what the model writes',
    example: '--sample-prompt "Once upon a time" --sample-every 50',
  }),
  /** Most tokens of a sample; default 48. */
  sampleTokens: option(whole(1), {
    group: 'Evaluation',
    value: 'N',
    needs: ['samplePrompt'],
    default: 48,
    summary: 'most tokens that the model writes after a prompt',
    example: '--sample-prompt "Once upon a time" --sample-tokens 100',
  }),
};

/** Checkpoints. */
export const checkpointOptions = {
  /** A folder for checkpoints. */
  checkpoint: option(path, {
    group: 'Checkpoints',
    value: 'DIR',
    summary: 'folder for checkpoints',
    example: '--checkpoint run1',
  }),
  /** Steps between checkpoints; default an epoch. */
  checkpointEvery: option(whole(1), {
    group: 'Checkpoints',
    value: 'STEPS',
    needs: ['checkpoint'],
    defaultText: 'an epoch',
    summary: 'steps between checkpoints',
    example: '--checkpoint run1 --checkpoint-every 50',
  }),
  /** Go on from the checkpoint in the folder. */
  resume: option(toggle, {
    group: 'Checkpoints',
    needs: ['checkpoint'],
    default: false,
    summary: 'resume from the checkpoint; the result is the same as without a break',
    example: '--checkpoint run1 --resume',
  }),
};

const runOptions = {
  ...sampleOptions,
  ...lossSettings,
  ...lossTrainOptions,
  ...lengthOptions,
  ...stepOptions,
  ...evaluationOptions,
  ...writingOptions,
  ...checkpointOptions,
  ...guardOption,
  ...providerOption,
  ...threadsOption,
  ...seedOption,
};

type Listeners = ResolvedOf<typeof workOptions & typeof noteOption>;

/** Options of a run with nothing left open. */
export type RunOptions = ResolvedOf<typeof runOptions> &
  Pick<Listeners, 'signal'> & {
    readonly [K in 'onProgress' | 'onNote']: NonNullable<Listeners[K]>;
  };
