/**
 * DoRA (arXiv 2402.09353): an adapter that also brings the columns of the weight to magnitudes m.
 *
 *     W' = (W + s·A·B) · diag(g)      g = m / ‖W + s·A·B‖, the norm of each column [out]
 *     Y' = Y + (g - 1) ∘ (X·W) + g ∘ (X · s·A·B)
 *
 * A bias inside the layer's operator is in Y and not in X·W: it is not scaled. The norms are computed in
 * the graph from W, A and B, which are constants: a runtime does it once, when it loads.
 */
import type { FloatName } from '../../onnx/dtype.js';
import type { Structure } from '../structure/structure.js';
import type { LinearLayer, OpenLayer } from '../targets/index.js';
import { amongColumns, isReadTransposed, updateAsRead } from './dense.js';
import { ownColumns, wideVector } from './part.js';
import { productWith } from './same-operator.js';
import { type Change, product, type WeightChange } from './subgraph.js';
import type { SubgraphBuilder } from './subgraph-builder.js';
import type { AdapterTensors } from './tensors.js';

export const scaledColumns: Change = (b, place) => {
  const { layer, structure, tensors, base } = place;
  const { dtype, own } = tensors;
  const parts = adaptedWeight(b, layer, structure, tensors);
  const gain = b.node('gain', 'Div', [own!.magnitude!, parts.norms]);
  if (mayBeVector(layer)) {
    const changed = changeOfWeight(b, layer, structure, dtype, { ...parts, gain });
    return productWith(b, layer, b.cast('change_cast', changed, dtype, layer.weight.dtype));
  }
  const delta = product(b, place);
  const excess = b.node('excess', 'Sub', [gain, b.number('one', 1, dtype)]);
  const factor = (leaf: string, value: string) => {
    const wide = wideVector(b, `${leaf}_wide`, value, structure);
    return alongOutput(b, layer, leaf, b.cast(`${leaf}_cast`, wide, dtype, layer.weight.dtype));
  };
  const layersProduct = withoutBias(b, layer, base);
  const scaledProduct = b.node('scaled_product', 'Mul', [
    layersProduct,
    factor('excess_axes', excess),
  ]);
  const scaledDelta = b.node('scaled_delta', 'Mul', [delta, factor('gain_axes', gain)]);
  return b.node('change', 'Add', [scaledProduct, scaledDelta]);
};

/** `W' - W` of a weight that the node reads as [in, out]. */
export const scaledWeight: WeightChange = (b, adapted) => {
  const { layer, structure, tensors } = adapted;
  const parts = adaptedWeight(b, layer, structure, tensors);
  const gain = b.node('gain', 'Div', [tensors.own!.magnitude!, parts.norms]);
  const change = changeOfWeight(b, layer, structure, tensors.dtype, { ...parts, gain });
  return amongColumns(b, change, adapted);
};

/** W and W + s·A·B as the node reads its weight, and the norms of its columns, [out]. */
interface AdaptedWeight {
  readonly weight: string;
  readonly adapted: string;
  readonly norms: string;
}

/** In the type of the factors. */
function adaptedWeight(
  b: SubgraphBuilder,
  { weight }: LinearLayer,
  structure: Structure,
  tensors: AdapterTensors,
): AdaptedWeight {
  const { dtype } = tensors;
  const isTransposed = isReadTransposed(weight);
  const update = updateAsRead(b, weight, structure, tensors);
  const own = ownColumns(b, weight.name, structure, isTransposed ? 0 : 1);
  const stored = b.cast('weight_cast', own, weight.dtype, dtype);
  // A kernel has further axes, all of size 1.
  const { out } = structure;
  const dims = isTransposed ? [out, weight.in] : [weight.in, out];
  const isMatrix = weight.constant?.dims.length === 2;
  const matrix = isMatrix ? stored : b.reshape('weight_matrix', stored, dims);
  const scaled =
    weight.factor === 1
      ? matrix
      : b.node('weight_scaled', 'Mul', [matrix, b.number('weight_factor', weight.factor, dtype)]);
  const adapted = b.node('adapted', 'Add', [scaled, update]);
  return { weight: scaled, adapted, norms: b.norms('norms', adapted, isTransposed ? 1 : 0) };
}

/**
 * Beside a weight on the left X may be a vector, and its product has no axis that columns of gains could
 * stretch along.
 */
function mayBeVector({ geometry }: OpenLayer): boolean {
  return geometry.kind === 'matrix' && geometry.outputColumns && !geometry.flat;
}

/** `W' - W`, whose product with X is right for any number of axes. */
function changeOfWeight(
  b: SubgraphBuilder,
  layer: LinearLayer,
  { out }: Structure,
  dtype: FloatName,
  { weight, adapted, gain }: AdaptedWeight & { gain: string },
): string {
  const { factor } = layer.weight;
  const column = isReadTransposed(layer.weight) ? b.reshape('gain_axes', gain, [out, 1]) : gain;
  const change = b.node('weight_change', 'Sub', [
    b.node('adapted_scaled', 'Mul', [adapted, column]),
    weight,
  ]);
  // The operator multiplies with its factor once more.
  return factor === 1
    ? change
    : b.node('change_divided', 'Div', [change, b.number('change_factor', factor, dtype)]);
}

/** A vector [out] as it meets the layer's output. */
function alongOutput(
  b: SubgraphBuilder,
  { geometry, weight }: OpenLayer,
  leaf: string,
  vector: string,
): string {
  if (geometry.kind === 'matrix' && !geometry.outputColumns) return vector;
  const axes = geometry.kind === 'matrix' ? 1 : geometry.spatial;
  return b.reshape(leaf, vector, [weight.out, ...Array<number>(axes).fill(1)]);
}

/** X·W: the layer's output without the bias that its operator adds. */
function withoutBias(b: SubgraphBuilder, layer: OpenLayer, base: string): string {
  const { geometry, weight } = layer;
  const node = layer.product?.node ?? layer.node;
  const bias = node.opType === 'Gemm' || geometry.kind === 'channels' ? node.inputs[2] : undefined;
  if (!bias) return base;
  if (geometry.kind === 'channels') {
    return b.node('product', 'Sub', [base, alongOutput(b, layer, 'bias_axes', bias)]);
  }
  const beta = node.attributes.get('beta')?.f ?? 1;
  const scaled =
    beta === 1 ? bias : b.node('bias_scaled', 'Mul', [bias, b.number('beta', beta, weight.dtype)]);
  return b.node('product', 'Sub', [base, scaled]);
}
