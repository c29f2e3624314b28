/**
 * Initial values in the direction of the first step: the columns of A are the left singular vectors of each
 * block of the gradient G = dL/dΔW over the first batches, and B is zero. The gradient of B is then
 * `s·Aᵀ·G`, so that the first step moves the weight along `A·Aᵀ·G`, the best fit of G that the structure
 * has (Eckart and Young). LoRA-GA (https://arxiv.org/abs/2407.05000) starts B in the gradient as well,
 * and has to take what that adds out of the weight; here the model starts exactly as it was, and its
 * weights stay as they are.
 */

import type { FactorName, NewAdapter } from '../../adapters/factors/factors.js';
import { fitStructure, type StructureFit } from '../../adapters/factors/fit-structure.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import {
  blocksOf,
  type Structure,
  shapeOfA,
  structureOf,
} from '../../adapters/structure/structure.js';
import { OnnxLoraError } from '../../errors.js';
import type { TensorReader } from '../../onnx/tensor.js';
import { pickOptions } from '../../options/resolve.js';
import { type GradientOptions, gradientOptions } from '../../training/gradient-options.js';
import {
  type GuardListener,
  type WeightGradient,
  weightGradients,
} from '../../training/weight-gradients.js';

/** The data and the loss whose gradient gives A. */
export type GradientInitOptions = GradientOptions & GuardListener;

/**
 * The same adapters with such an A. A direction that the gradient does not have keeps its initial values.
 * @throws OnnxLoraError `unsupported` for a layer that has no gradient; those of {@link weightGradients}
 */
export async function gradientInit(
  patched: PatchedModel,
  reader: TensorReader,
  adapters: readonly NewAdapter[],
  options: GradientInitOptions,
): Promise<NewAdapter[]> {
  const layers = adapters.map(({ layer }) => layer);
  const initialized = new Map<NewAdapter['layer'], NewAdapter>();
  const byLayer = new Map(adapters.map((adapter) => [adapter.layer, adapter]));
  const own = { ...pickOptions(gradientOptions, options), onGuard: options.onGuard };
  for await (const result of weightGradients(patched, reader, layers, own)) {
    if ('refusal' in result) throw noGradient(result.layer.module, result.refusal);
    const adapter = byLayer.get(result.layer)!;
    initialized.set(result.layer, await directed(adapter, result, options.seed));
  }
  return layers.map((layer) => initialized.get(layer)!);
}

async function directed(
  adapter: NewAdapter,
  { values: gradient }: WeightGradient,
  seed: number | undefined,
): Promise<NewAdapter> {
  const structure = structureOf(adapter.record);
  const fit = await fitStructure(gradient, structure, { seed });
  const a = directions(fit.a, adapter.values('a'), structure);
  const general = generalDirections(adapter, structure, fit);
  const known: { [F in FactorName]?: Float64Array | undefined } = { a, generalA: general };
  return { ...adapter, values: (factor) => known[factor] ?? adapter.values(factor) };
}

function generalDirections(adapter: NewAdapter, structure: Structure, { generalA }: StructureFit) {
  const { hybridRank: rank } = structure;
  if (!generalA) return undefined;
  const general = { ...structure, structure: 'global', grid: [1, 1], blockRank: rank } as const;
  return directions(generalA, adapter.values('generalA'), general);
}

// As long as the columns of a Kaiming start are in the mean, so that its learning rates fit.
const LENGTH = Math.sqrt(1 / 3);

// Gradients are computed in float32: singular values below this share of the largest are its rounding.
const ROUNDING = 2 ** -20;

/** The columns of a fit's A, block by block, all of one length; where it has none, those of `others`. */
function directions(fit: Float64Array, others: Float64Array, structure: Structure): Float64Array {
  const height = structure.in / structure.grid[0];
  const stride = shapeOfA(structure).at(-1)!;
  const result = others.slice();
  for (const { n, columnOfA } of blocksOf(structure)) {
    let least = 0;
    for (let k = 0; k < structure.blockRank; k++) {
      const first = n * height * stride + columnOfA + k;
      const rows = Array.from({ length: height }, (_, row) => first + row * stride);
      // A column of U·√s: the largest singular value comes first.
      const singular = rows.reduce((sum, at) => sum + fit[at]! ** 2, 0);
      if (k === 0) least = singular * ROUNDING;
      if (singular <= least) continue;
      for (const at of rows) result[at] = (fit[at]! * LENGTH) / Math.sqrt(singular);
    }
  }
  return result;
}

function noGradient(module: string, refusal: string): OnnxLoraError {
  return new OnnxLoraError('unsupported', `${module} has no gradient to start from: ${refusal}`, {
    node: module,
    hint: `Leave the layer out (\`exclude: [${JSON.stringify(module)}]\`), or take other initial values (\`init: 'kaiming'\`).`,
  });
}
