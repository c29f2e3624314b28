/**
 * Initial values in the weight itself (PiSSA, https://arxiv.org/abs/2404.02948): the adapter takes over what
 * its structure says best of the weight, block by block, and the model keeps the rest:
 *
 *     s·A·B = the best fit of W      W' = W - s·A·B
 *
 * Training then moves what matters most in W from the first step on. The model computes what it did,
 * up to the rounding of W' to the weight's type: its numbers are computed from A and B as they are
 * stored. The global part of a hybrid starts at random, with its B at zero.
 */

import { factorDtype } from '../../adapters/edit/insert.js';
import type { FactorName, NewAdapter } from '../../adapters/factors/factors.js';
import { fitStructure, type StructureFit } from '../../adapters/factors/fit-structure.js';
import type { Factors } from '../../adapters/factors/norms.js';
import { type BaseWeight, storedWeight } from '../../adapters/fold/base-weight.js';
import { RowFactors } from '../../adapters/fold/row-factors.js';
import { sums } from '../../adapters/fold/sums.js';
import { isStoredFloat, weightValues } from '../../adapters/fold/weight-values.js';
import type { Layer } from '../../adapters/model/layers.js';
import type { AdapterShape } from '../../adapters/model/manifest.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import { type Structure, structureOf } from '../../adapters/structure/structure.js';
import type { Weight } from '../../adapters/targets/index.js';
import { OnnxLoraError } from '../../errors.js';
import { finalReaders } from '../../graph/readers.js';
import { byteLength, type FloatName, fromFloat64, toFloat64 } from '../../onnx/dtype.js';
import type { NewTensor } from '../../onnx/encode.js';
import { nodeLabel } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';

/** An adapter that starts in its weight, and what the weight keeps. */
export interface PissaInit {
  readonly adapter: NewAdapter;
  readonly rest: NewTensor;
  /** |W - (W' + s·A·B)| / |W|, once `rest` was written. */
  deviation(): number;
}

/**
 * Starts an adapter in its weight.
 * @throws OnnxLoraError `unsupported` for a weight that cannot be replaced: one that is quantized, that
 * is in a body, or that other nodes read; `invalid-model` for one that is not finite
 */
export async function pissaInit(
  patched: PatchedModel,
  reader: TensorReader,
  adapter: NewAdapter,
  seed: number,
): Promise<PissaInit> {
  const { layer, record } = adapter;
  const { weight } = layer.linear[0]!;
  if (record.scale === 0) throw noScale(layer);
  const { tensor, node } = replaceable(patched, layer);
  const values = await finiteWeight(reader, weight, layer);
  const fit = await fitStructure(values, gridOf(record), { seed });
  const factors = storedFactors(fit, record.scale, factorDtype(layer));
  const delta = new RowFactors(
    gridOf(record),
    factors,
    -storedScale(record.scale, factorDtype(layer)) / weight.factor,
    weight.transposed,
  );
  const dtype = weight.storedDtype as FloatName;
  const { data, deviation } = rounded(storedWeight(reader, tensor, dtype), delta);
  return {
    adapter: { ...adapter, values: (factor) => factors[factor] ?? adapter.values(factor) },
    rest: { name: node ? node.outputs[0]! : tensor.name, dtype, dims: tensor.dims, data },
    deviation,
  };
}

/** `W + ΔW` in the type of W, and what rounding it changed as a share of |W|, known once it is written. */
function rounded(weight: BaseWeight, delta: RowFactors) {
  const { dtype, rows, columns } = weight;
  let [changed, squares] = [0, 0];
  async function* chunks() {
    for await (const { panel } of sums(weight, [delta])) {
      const { before, after } = panel;
      const bytes = fromFloat64(dtype, after);
      const stored = toFloat64(dtype, bytes, after.length);
      for (let i = 0; i < after.length; i++) {
        changed += (stored[i]! - after[i]!) ** 2;
        squares += before[i]! ** 2;
      }
      yield bytes;
    }
  }
  const data = { length: byteLength(dtype, rows * columns), chunks };
  return { data, deviation: () => (squares === 0 ? 0 : Math.sqrt(changed / squares)) };
}

/** The part that is initialized from the weight: the blocks, without a hybrid's global part. */
export function gridOf(record: AdapterShape): Structure {
  return { ...structureOf(record), hybridRank: 0 };
}

/** The weight [in, out] that the layer computes with. */
async function finiteWeight(reader: TensorReader, weight: Weight, { module }: Layer) {
  const values = await weightValues(reader, weight);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return values;
  throw new OnnxLoraError(
    'invalid-model',
    `${module}: its weight ${weight.name} holds ${values[bad]}, expected finite numbers`,
    { node: module, hint: 'The model is damaged: fetch or export it again.' },
  );
}

type StoredFactors = { readonly [F in FactorName]?: Float64Array } & Factors;

/** The factors as they will be stored, so that `s · a · b` is the fit. */
function storedFactors({ a, b }: StructureFit, scale: number, dtype: FloatName): StoredFactors {
  const root = 1 / Math.sqrt(Math.abs(scale));
  const times = (values: Float64Array, factor: number) => {
    const scaled = values.map((value) => value * factor);
    return toFloat64(dtype, fromFloat64(dtype, scaled), scaled.length);
  };
  return { a: times(a, root), b: times(b, Math.sign(scale) * root) };
}

function storedScale(scale: number, dtype: FloatName): number {
  return dtype === 'float64' ? scale : Math.fround(scale);
}

/** The weight of a layer that nothing else depends on. */
function replaceable({ model, values }: PatchedModel, { linear, module }: Layer) {
  const { weight } = linear[0]!;
  const { constant } = weight;
  if (!constant || !isStoredFloat(weight)) {
    throw irreplaceable(module, `is stored as ${weight.storedDtype}, expected floating point`);
  }
  if (constant.graph !== model.graph) {
    throw irreplaceable(module, 'is in the body of an If, Loop or Scan');
  }
  const own = new Map(linear.map((one) => [one.node, one.weight.input]));
  const other = finalReaders(values, constant).find(
    ({ node, index }) => !node || own.get(node) !== index,
  );
  if (!other) return constant;
  const by = other.node ? nodeLabel(other.node) : 'the graph as an output';
  throw irreplaceable(module, `is read by ${by} too, which would lose what the adapter takes over`);
}

function noScale({ module }: Layer): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', `${module}: with alpha 0 its adapter says nothing`, {
    node: module,
    hint: "Leave `alpha` out, or take other initial values (`init: 'kaiming'`).",
  });
}

function irreplaceable(module: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('unsupported', `${module}: its weight ${problem}`, {
    node: module,
    hint: `Leave the layer out (\`exclude: [${JSON.stringify(module)}]\`), or take other initial values (\`init: 'kaiming'\`).`,
  });
}
