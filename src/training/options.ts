/** What a training run can be told, with the values that stand where nothing is said. */

import type { Dataset } from '../data/dataset.js';
import { groupOf } from '../data/match.js';
import type { DataOptions } from '../data/request.js';
import { OnnxLoraError } from '../errors.js';
import type { ValueInfo } from '../onnx/model.js';
import type { WriteOptions } from '../onnx/write.js';
import type { ProviderName } from '../runtime/provider-names.js';
import {
  type LossName,
  type LossOption,
  type LossOptions,
  losses,
  lossesWith,
  lossOptionNames,
} from './losses/index.js';
import {
  defaultsOf,
  type OptimizerName,
  type OwnOption,
  optimizerNames,
  optimizersWith,
} from './optimizers/index.js';
import type { ScheduleName } from './schedule.js';

/** The loss, and what is the same whether it is to become small or is only measured. */
export interface LossSettings
  extends Pick<
    LossOptions,
    'ignoreIndex' | 'classWeights' | 'focalGamma' | 'posWeight' | 'blank' | 'scale'
  > {
  /** The loss function. */
  readonly loss: LossName;
  /** The output that the loss looks at. May be left out where the model has one. */
  readonly modelOutput?: string | undefined;
}

/** Whether a training or evaluation graph is compared with the file first. */
export interface GuardSetting {
  /** false: do not compare the graph that computes the loss with the file itself on the first batch. */
  readonly guard?: boolean | undefined;
}

/** Options of `train`. */
export interface TrainOptions
  extends WriteOptions,
    DataOptions,
    LossSettings,
    GuardSetting,
    Pick<LossOptions, 'labelSmoothing' | 'temperature'> {
  /** Samples to train on; see `openDataset`. */
  readonly data: string;
  /** Samples to evaluate on; see `openDataset`. */
  readonly evalData?: string | undefined;
  /** A trainable output layer on the hidden states: `linear:CLASSES[:mean|cls|none]`. */
  readonly head?: string | undefined;
  /** Whether the biases of adapted layers train too. */
  readonly trainBias?: boolean | undefined;
  /** The adapter set to train. May be left out where the model has one. */
  readonly name?: string | undefined;

  /** Passes over the data; default 3. */
  readonly epochs?: number | undefined;
  /** Updates, instead of `epochs`. */
  readonly steps?: number | undefined;
  /** Default 8. */
  readonly batchSize?: number | undefined;
  /** Batches that make one update; default 1. */
  readonly accumulate?: number | undefined;
  /** false: samples in the order of the file. */
  readonly shuffle?: boolean | undefined;
  /** Of the order of samples and of dropout; default 0. */
  readonly seed?: number | undefined;

  /**
   * A power of two that the loss is multiplied by for the backward pass, and the gradient divided by
   * behind it. Default `auto`, which is 1: the backward pass of half precision is float32, where nothing
   * that training has a use for is lost.
   */
  readonly lossScale?: number | string | undefined;

  /** The optimizer; default `adamw`. */
  readonly optimizer?: OptimizerName | undefined;
  /** The highest learning rate; default 5e-4, for Lion 1e-4. */
  readonly lr?: number | undefined;
  /** LoRA+: the learning rate of B, and of biases, over that of A; default 1. */
  readonly lrRatio?: number | undefined;
  /** Default linear. */
  readonly schedule?: ScheduleName | undefined;
  /** Steps in which the learning rate rises from zero; default 0. */
  readonly warmup?: number | undefined;
  /** Default 0.01. */
  readonly weightDecay?: number | undefined;
  /** Of AdamW, default 0.9 and 0.999; of Lion, default 0.9 and 0.99. */
  readonly betas?: readonly number[] | undefined;
  /** Of AdamW; default 1e-8. */
  readonly eps?: number | undefined;
  /** Of SGD; default 0.9. */
  readonly momentum?: number | undefined;
  /** The largest norm of the gradient; default 1, 0 for no limit. */
  readonly clip?: number | undefined;
  /** The share of what adapters read that is dropped, at random; default 0. */
  readonly dropout?: number | undefined;

  /** Steps between evaluations; default an epoch. */
  readonly evalEvery?: number | undefined;
  /** Stop after so many evaluations without a better loss. */
  readonly earlyStop?: number | undefined;
  /** Write the adapters of the best evaluation instead of the last. */
  readonly keepBest?: boolean | undefined;

  /** A folder for checkpoints. */
  readonly checkpoint?: string | undefined;
  /** Steps between checkpoints; default an epoch. */
  readonly checkpointEvery?: number | undefined;
  /** Go on from the checkpoint in the folder. */
  readonly resume?: boolean | undefined;

  /** Default: the model's path with `.trained.onnx`. */
  readonly output?: string | undefined;
  /** A file for the adapters alone. */
  readonly saveAdapter?: string | undefined;
  /** A file for one JSON line a step and an evaluation. */
  readonly log?: string | undefined;
  /** An SVG file for the curves. */
  readonly plot?: string | undefined;
  /** A folder for the curves, as TensorBoard reads them. */
  readonly tensorboard?: string | undefined;
  /** An HTML file that tells the whole run: curves, measures, settings, what the adapters changed. */
  readonly report?: string | undefined;
  /** Write the step graph here instead of running it. */
  readonly emitStepGraph?: string | undefined;

  /** Default auto. */
  readonly provider?: ProviderName | 'auto' | undefined;
  /** CPU threads; default one a core. */
  readonly threads?: number | undefined;
  /** Remarks for people: what is not read, what was chosen. */
  readonly onNote?: ((text: string) => void) | undefined;
}

type Defaulted =
  | 'batchSize'
  | 'accumulate'
  | 'shuffle'
  | 'seed'
  | 'optimizer'
  | 'lr'
  | 'lrRatio'
  | 'schedule'
  | 'warmup'
  | 'weightDecay'
  | 'eps'
  | 'momentum'
  | 'clip'
  | 'dropout'
  | 'force'
  | 'provider'
  | 'onNote'
  | 'onProgress';

/** Options with nothing left open. */
export type ResolvedOptions = Omit<TrainOptions, Defaulted | 'betas' | 'lossScale'> & {
  readonly [K in Defaulted]-?: NonNullable<TrainOptions[K]>;
} & { readonly betas: readonly [number, number]; readonly lossScale: number };

/**
 * Fills in the defaults.
 * @throws OnnxLoraError `invalid-argument` for a number out of range, or options that exclude or need
 * one another
 */
export function resolveOptions(options: TrainOptions): ResolvedOptions {
  const { optimizer = 'adamw' } = options;
  checkOptimizer(optimizer, options);
  const defaults = defaultsOf(optimizer);
  const resolved: ResolvedOptions = {
    ...options,
    batchSize: options.batchSize ?? 8,
    accumulate: options.accumulate ?? 1,
    lossScale: scaleOf(options.lossScale),
    shuffle: options.shuffle ?? true,
    seed: options.seed ?? 0,
    optimizer,
    lr: options.lr ?? defaults.lr,
    lrRatio: options.lrRatio ?? 1,
    schedule: options.schedule ?? 'linear',
    warmup: options.warmup ?? 0,
    weightDecay: options.weightDecay ?? 0.01,
    betas: pairOf(options.betas ?? defaults.betas),
    eps: options.eps ?? defaults.eps,
    momentum: options.momentum ?? defaults.momentum,
    clip: options.clip ?? 1,
    dropout: options.dropout ?? 0,
    force: options.force ?? false,
    provider: options.provider ?? 'auto',
    onNote: options.onNote ?? (() => {}),
    onProgress: options.onProgress ?? (() => {}),
  };
  checkRanges(resolved);
  checkCombinations(resolved);
  return resolved;
}

/** Whether there is such an optimizer, and it uses what it is given. */
function checkOptimizer(
  optimizer: OptimizerName,
  options: Readonly<Partial<Record<OwnOption, unknown>>>,
): void {
  if (!optimizerNames.includes(optimizer)) {
    throw invalid(`optimizer is ${optimizer}, expected one of ${optimizerNames.join(', ')}`);
  }
  for (const key of ['betas', 'eps', 'momentum'] as const) {
    const users = optimizersWith(key);
    if (options[key] === undefined || users.includes(optimizer)) continue;
    throw invalid(`${key} is an option of ${users.join(' and ')}, not of ${optimizer}`);
  }
}

function pairOf(betas: readonly number[]): readonly [number, number] {
  const [first, second, ...rest] = betas;
  if (first !== undefined && second !== undefined && rest.length === 0) return [first, second];
  throw invalid(
    `betas are ${betas.join(', ')}, expected two numbers`,
    'For example 0.9 and 0.999.',
  );
}

// Beyond it float32 itself would overflow.
const MAX_LOSS_SCALE = 2 ** 64;

function scaleOf(given: TrainOptions['lossScale'] = 'auto'): number {
  if (given === 'auto') return 1;
  const scale = Number(given);
  if (scale >= 1 && scale <= MAX_LOSS_SCALE && Number.isInteger(Math.log2(scale))) return scale;
  throw invalid(
    `lossScale is ${given}, expected auto or a power of two from 1 to 2^64`,
    'For example 1024. Other numbers would round the gradient.',
  );
}

/** @throws OnnxLoraError `invalid-argument` naming an option that is given and not `least` or more */
export function checkWhole(
  options: Readonly<Record<string, number | undefined>>,
  least: number,
): void {
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || (Number.isInteger(value) && value >= least)) continue;
    throw invalid(`${key} is ${value}, expected a whole number from ${least} on`);
  }
}

/** @throws OnnxLoraError `invalid-argument` */
export function checkThreads({ threads }: { readonly threads?: number | undefined }): void {
  checkWhole({ threads }, 1);
  if (threads === undefined || threads <= MAX_THREADS) return;
  throw invalid(`threads is ${threads}, expected at most ${MAX_THREADS}`);
}

function checkRanges(options: ResolvedOptions): void {
  const { betas, epochs, lr, lrRatio, eps } = options;
  const { batchSize, accumulate, steps, evalEvery, earlyStop, checkpointEvery, warmup } = options;
  checkFloats(options);
  checkWhole({ batchSize, accumulate, steps, evalEvery, earlyStop, checkpointEvery }, 1);
  checkWhole({ warmup }, 0);
  checkThreads(options);
  for (const key of ['weightDecay', 'momentum', 'clip'] as const) {
    if (!(options[key] >= 0)) throw invalid(`${key} is ${options[key]}, expected 0 or more`);
  }
  const { dropout } = options;
  if (!(dropout >= 0 && dropout < 1)) {
    throw invalid(`dropout is ${dropout}, expected a share from 0 to below 1`);
  }
  if (!(Math.fround(lr) > 0)) throw invalid(`lr is ${lr}, expected more than 0`);
  if (!(Math.fround(lrRatio) > 0)) throw invalid(`lrRatio is ${lrRatio}, expected more than 0`);
  if (!(Math.fround(eps) > 0)) throw invalid(`eps is ${eps}, expected more than 0 in float32`);
  if (epochs !== undefined && !(epochs > 0)) {
    throw invalid(`epochs is ${epochs}, expected more than 0`);
  }
  if (betas.some((beta) => !(beta >= 0 && beta < 1))) {
    throw invalid(`betas are ${betas.join(', ')}, expected numbers from 0 to below 1`);
  }
}

/** The step computes in float32, where larger numbers are infinite. */
function checkFloats(options: object): void {
  for (const [key, value] of Object.entries(options)) {
    const numbers = [value].flat().filter((one) => typeof one === 'number');
    const bad = numbers.find((number) => !Number.isFinite(Math.fround(number)));
    if (bad !== undefined)
      throw invalid(`${key} is ${bad}, expected a finite number that float32 holds, up to 3.4e38`);
  }
}

// Far beyond the cores of any machine; each takes memory of its own.
const MAX_THREADS = 1024;

const ofRuns = [
  ...(['output', 'saveAdapter', 'plot', 'log', 'tensorboard', 'report'] as const),
  ...(['checkpoint', 'evalData'] as const),
];

function checkCombinations(options: ResolvedOptions): void {
  const { epochs, steps, evalData, checkpoint } = options;
  if (epochs !== undefined && steps !== undefined) {
    throw invalid('epochs and steps are both given', 'Say how long to train by one of them.');
  }
  const needsEvaluation = (['evalEvery', 'earlyStop', 'keepBest'] as const).find(
    (key) => options[key] !== undefined && options[key] !== false,
  );
  if (needsEvaluation !== undefined && evalData === undefined) {
    throw invalid(`${needsEvaluation} needs data to evaluate with`, 'Give it with --eval-data.');
  }
  const needsFolder = (['checkpointEvery', 'resume'] as const).find(
    (key) => options[key] !== undefined && options[key] !== false,
  );
  if (needsFolder !== undefined && checkpoint === undefined) {
    throw invalid(`${needsFolder} needs a folder for checkpoints`, 'Name it with --checkpoint.');
  }
  if (options.emitStepGraph === undefined) return;
  const idle = ofRuns.find((key) => options[key] !== undefined);
  if (idle === undefined) return;
  throw invalid(`${idle} has no effect where the step graph is written instead of running it`);
}

function invalid(message: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, { hint });
}

/**
 * The options of the loss for some data.
 * @param inputs of the model
 * @throws OnnxLoraError `invalid-argument` for an option that the loss has no use for
 */
export function lossOptions(
  options: LossSettings & Pick<LossOptions, LossOption>,
  inputs: readonly ValueInfo[],
  { keys }: Dataset,
): LossOptions {
  const { loss } = options;
  const idle = lossOptionNames.find(
    (key) => options[key] !== undefined && !losses[loss].options.includes(key),
  );
  if (idle !== undefined) {
    throw invalid(`${idle} is an option of ${lossesWith(idle)}, not of ${loss}`);
  }
  const isTriple = inputs.some(
    ({ name, shape }) => groupOf(keys.get(name)?.shape ?? [], shape) === 3,
  );
  const group = isTriple ? 3 : 2;
  const given = Object.fromEntries(losses[loss].options.map((key) => [key, options[key]]));
  return { ...given, dataKeys: [...keys.keys()], group };
}
