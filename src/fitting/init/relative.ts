/** Adapters that took something out of their weights, converted for the original model. */

import { exactSum } from '../../adapters/combine/combine-layer.js';
import { fitStructure, type StructureFit } from '../../adapters/factors/fit-structure.js';
import type { AdapterContents, OutgoingAdapter } from '../../adapters/files/adapter-contents.js';
import { isStoredFloat, weightValues } from '../../adapters/fold/weight-values.js';
import { findLayers } from '../../adapters/model/layers.js';
import type { ModelManifest } from '../../adapters/model/manifest.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import { finiteBytes } from '../../adapters/structure/finite.js';
import type { Weight } from '../../adapters/targets/index.js';
import { OnnxLoraError } from '../../errors.js';
import { sumOfSquares } from '../../linalg/products.js';
import type { FloatName } from '../../onnx/dtype.js';
import type { TensorReader } from '../../onnx/tensor.js';
import { gridOf } from './pissa.js';

/**
 * Initial values from the weights (`init: 'pissa'`) split W into W' + s·A₀·B₀, and the model keeps W'. For those
 * who have W, the adapter is s·A·B - s·A₀·B₀, of the same structure and twice the rank; s·A₀·B₀ is the
 * best fit of W - W', which has its rank. Formats without a place for W' want adapters so.
 * @throws OnnxLoraError `unsupported` where the weight of an adapted layer is another one altogether
 */
export async function relativeToBase(
  patched: PatchedModel,
  set: ModelManifest,
  reader: TensorReader,
  contents: AdapterContents,
): Promise<AdapterContents> {
  const splits = splitWeights(patched, set);
  const adapters: OutgoingAdapter[] = [];
  for (const adapter of contents.adapters) {
    const split = splits.get(adapter.record.name);
    adapters.push(split ? await withoutStart(adapter, split, reader) : adapter);
  }
  const converted = new Set([...splits.values()].map(({ tensor }) => tensor));
  return {
    ...contents,
    adapters,
    trained: contents.trained.filter(({ name }) => !converted.has(name)),
  };
}

/** The weight of a layer, now and before. */
interface Split {
  readonly tensor: string;
  readonly now: Weight;
  readonly before: Weight;
}

/** The weights that the set replaced, by the names of the adapters beside them. */
function splitWeights(patched: PatchedModel, set: ModelManifest): Map<string, Split> {
  const layers = new Map(
    findLayers(patched).flatMap(({ linear }) => linear.map(({ node, weight }) => [node, weight])),
  );
  const originals = new Map(
    (set.replaced ?? []).map((one) => [patched.initializer(one.tensor), patched.original(one)]),
  );
  const splits = new Map<string, Split>();
  for (const { set: owner, adapter, target } of patched.sites) {
    const now = layers.get(target);
    const original = now?.constant && originals.get(now.constant.tensor);
    if (owner !== set || !original || !isStoredFloat(now)) continue;
    const before = { ...now, constant: { ...now.constant!, tensor: original.tensor } };
    splits.set(adapter.name, { tensor: now.constant!.tensor.name, now, before });
  }
  return splits;
}

// Of W' and of the arithmetic around it, as a share of |W|: rounding alone does not make it another weight.
const ROUNDING = { float64: 1e-6, float32: 1e-6, float16: 1e-3, bfloat16: 1e-2 } as const;

async function withoutStart(
  adapter: OutgoingAdapter,
  { now, before, tensor }: Split,
  reader: TensorReader,
): Promise<OutgoingAdapter> {
  const rest = await weightValues(reader, now);
  const whole = await weightValues(reader, before);
  const taken = whole.map((value, i) => value - rest[i]!);
  finiteBytes('float64', taken, `what was taken out of ${tensor}`);
  const start = await fitStructure(taken, gridOf(adapter.record));
  const left = start.error * Math.sqrt(sumOfSquares(taken) / sumOfSquares(whole));
  if (left > ROUNDING[now.storedDtype as FloatName]) throw otherWeight(adapter, tensor, left);
  return exactSum([
    { adapter, weight: 1, input: 0 },
    { adapter: asAdapter(start, adapter), weight: -1, input: 1 },
  ]);
}

/** A fit as an adapter like another one. */
function asAdapter(fit: StructureFit, adapter: OutgoingAdapter): OutgoingAdapter {
  const record = { ...adapter.record, hybridRank: 0, scale: 1 };
  return { ...adapter, record, values: (factor) => fit[factor]! };
}

function otherWeight({ record }: OutgoingAdapter, tensor: string, left: number): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${record.name}: its weight ${tensor} was replaced, and differs from the model's by more than a start of its rank (${left.toExponential(1)} of its norm is left)`,
    { hint: 'Extract to .safetensors, which has a place for whole weights.' },
  );
}
