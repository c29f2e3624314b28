/** Initial values of new adapters: random, from the weights, or from the gradient on data. */

import type { NewAdapter } from '../../adapters/factors/factors.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import type { InitName } from '../../adapters/structure/choices.js';
import { OnnxLoraError } from '../../errors.js';
import type { NewTensor } from '../../onnx/encode.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { GradientOptions } from '../../training/gradient-options.js';
import type { GuardListener } from '../../training/weight-gradients.js';
import type { PissaInit } from './pissa.js';

type GradientOf = Omit<GradientOptions, 'data' | 'loss'> & {
  readonly [K in 'data' | 'loss']?: GradientOptions[K] | undefined;
};

/** Options of initial values: with `init: 'gradient'` on data, which are given then. */
export interface InitOptions extends GradientOf, GuardListener {
  readonly init: InitName;
  readonly seed: number;
}

/** Adapters with their numbers, and tensors that the model gets with them. */
export interface Initialized {
  readonly adapters: readonly NewAdapter[];
  readonly tensors: readonly NewTensor[];
  /**
   * The largest |W - (W' + ΔW)| / |W| of a weight, once all was written: what rounding made of it.
   * Undefined where weights stay as they are.
   */
  readonly deviation?: () => number;
}

/**
 * Gives planned adapters their initial values.
 * @throws OnnxLoraError `invalid-argument` for data without a use, or none where they are needed; those
 * of `pissaInit` and `gradientInit`
 */
export async function initializeAdapters(
  patched: PatchedModel,
  reader: TensorReader,
  adapters: readonly NewAdapter[],
  options: InitOptions,
): Promise<Initialized> {
  const { init, data, loss } = options;
  if (init === 'gradient') {
    if (data === undefined || loss === undefined)
      throw missing(data === undefined ? 'data' : 'loss');
    const all = { ...options, data, loss };
    const { gradientInit } = await import('./gradient.js');
    return { adapters: await gradientInit(patched, reader, adapters, all), tensors: [] };
  }
  if (init === 'pissa') return inWeights(patched, reader, adapters, options);
  return { adapters, tensors: [] };
}

async function inWeights(
  patched: PatchedModel,
  reader: TensorReader,
  adapters: readonly NewAdapter[],
  { seed, signal, onProgress }: InitOptions,
): Promise<Initialized> {
  const { pissaInit } = await import('./pissa.js');
  const inits: PissaInit[] = [];
  for (const [done, adapter] of adapters.entries()) {
    onProgress?.({ phase: 'decompose', done, total: adapters.length, unit: 'weights' });
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
    inits.push(await pissaInit(patched, reader, adapter, seed));
  }
  return {
    adapters: inits.map(({ adapter }) => adapter),
    tensors: inits.map(({ rest }) => rest),
    deviation: () => Math.max(...inits.map(({ deviation }) => deviation())),
  };
}

function missing(option: 'data' | 'loss'): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-argument',
    `\`init\` gradient needs ${option === 'data' ? '`data`' : 'a `loss`'}, which show where the weights are pulled`,
    { hint: "Give both: `init: 'gradient', data: FILE, loss: NAME`" },
  );
}
