/** Initial values of new adapters: random, from the weights, or from the gradient on data. */

import type { NewAdapter } from '../../adapters/factors/factors.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import type { InitName } from '../../adapters/structure/choices.js';
import { OnnxLoraError } from '../../errors.js';
import type { NewTensor } from '../../onnx/encode.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { WorkOptions } from '../../onnx/write.js';
import type { ProviderName } from '../../runtime/provider-names.js';
import type { GradientOptions, GuardListener } from '../../training/weight-gradients.js';
import type { PrincipalStart } from './principal-start.js';

/** The data and the loss of a start in the gradient. */
export type StartData = {
  readonly [K in keyof Omit<GradientOptions, keyof SharedOptions>]?: GradientOptions[K] | undefined;
};

/** Options that mean something to every patch. */
export interface SharedOptions extends WorkOptions {
  /** Of random numbers; default 0. */
  readonly seed?: number | undefined;
  /** The output that the loss looks at. May be left out where the model has one. */
  readonly modelOutput?: string | undefined;
  /** Runs the model; default `auto`. */
  readonly provider?: ProviderName | 'auto' | undefined;
}

/** Options that only an initialization from the gradient reads. */
export const startDataOptions = [
  ...['data', 'loss', 'batches', 'batchSize', 'memory', 'threads', 'guard'],
  ...['ignoreIndex', 'classWeights', 'posWeight', 'blank', 'scale'],
] as readonly (keyof StartData)[];

export interface StartOptions extends SharedOptions, StartData, GuardListener {
  readonly init?: InitName | undefined;
}

/** Adapters with their numbers, and tensors that the model gets with them. */
export interface Started {
  readonly adapters: readonly NewAdapter[];
  readonly tensors: readonly NewTensor[];
  /**
   * The largest |W - (W' + ΔW)| / |W| of a weight, once all was written: what rounding made of it.
   * Undefined where weights stay as they are.
   */
  readonly deviation?: () => number;
}

/**
 * Gives planned adapters their start.
 * @throws OnnxLoraError `invalid-argument` for data without a use, or none where they are needed; those
 * of `principalStart` and `gradientStart`
 */
export async function startAdapters(
  patched: PatchedModel,
  reader: TensorReader,
  adapters: readonly NewAdapter[],
  options: StartOptions,
): Promise<Started> {
  const { init, data, loss, seed = 0 } = options;
  if (init === 'gradient') {
    if (data === undefined || loss === undefined)
      throw missing(data === undefined ? 'data' : 'loss');
    const all = { ...options, data, loss, seed };
    const { gradientStart } = await import('./gradient-start.js');
    return { adapters: await gradientStart(patched, reader, adapters, all), tensors: [] };
  }
  if (init === 'pissa') return inWeights(patched, reader, adapters, options);
  return { adapters, tensors: [] };
}

async function inWeights(
  patched: PatchedModel,
  reader: TensorReader,
  adapters: readonly NewAdapter[],
  { seed = 0, signal, onProgress }: StartOptions,
): Promise<Started> {
  const { principalStart } = await import('./principal-start.js');
  const starts: PrincipalStart[] = [];
  for (const [done, adapter] of adapters.entries()) {
    onProgress?.({ phase: 'decompose', done, total: adapters.length, unit: 'weights' });
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
    starts.push(await principalStart(patched, reader, adapter, seed));
  }
  return {
    adapters: starts.map(({ adapter }) => adapter),
    tensors: starts.map(({ rest }) => rest),
    deviation: () => Math.max(...starts.map(({ deviation }) => deviation())),
  };
}

function missing(option: 'data' | 'loss'): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-argument',
    `init gradient needs ${option === 'data' ? 'data' : 'a loss'}, which say where the weights are pulled`,
    { hint: "Give both: `init: 'gradient', data: FILE, loss: NAME`" },
  );
}
