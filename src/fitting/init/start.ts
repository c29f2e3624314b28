/** Initial values of new adapters: random, from the weights, or from the gradient on data. */

import type { NewAdapter } from '../../adapters/factors/factors.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import type { InitName } from '../../adapters/structure/choices.js';
import { OnnxLoraError } from '../../errors.js';
import type { NewTensor } from '../../onnx/encode.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { GradientOptions } from '../../training/gradient-options.js';
import type { GuardListener } from '../../training/weight-gradients.js';
import type { PrincipalStart } from './principal-start.js';

type GradientOf = Omit<GradientOptions, 'data' | 'loss'> & {
  readonly [K in 'data' | 'loss']?: GradientOptions[K] | undefined;
};

/** Options of initial values: with `init: 'gradient'` on data, which are given then. */
export interface StartOptions extends GradientOf, GuardListener {
  readonly init: InitName;
  readonly seed: number;
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
  const { init, data, loss } = options;
  if (init === 'gradient') {
    if (data === undefined || loss === undefined)
      throw missing(data === undefined ? 'data' : 'loss');
    const all = { ...options, data, loss };
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
  { seed, signal, onProgress }: StartOptions,
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
    `\`init\` gradient needs ${option === 'data' ? '`data`' : 'a `loss`'}, which show where the weights are pulled`,
    { hint: "Give both: `init: 'gradient', data: FILE, loss: NAME`" },
  );
}
