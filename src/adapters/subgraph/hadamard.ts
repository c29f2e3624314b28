/**
 * `X · (W ∘ s·A·B)`, the layer's own operator with another weight. That weight is made of constants: a
 * runtime computes it once, when it loads, and keeps it beside W.
 */
import { isDequantized } from '../targets/weight.js';
import { amongColumns, isReadTransposed, updateAsRead } from './dense.js';
import { ownColumns, wideColumns } from './part.js';
import { productWith } from './same-operator.js';
import { type Change, likeBase, type WeightChange } from './subgraph.js';

export const hadamardProduct: Change = (b, { layer, structure, tensors, base }) => {
  const { weight, geometry } = layer;
  const { dtype } = tensors;
  const update = updateAsRead(b, weight, structure, tensors);
  const ones = geometry.kind === 'channels' ? Array<number>(geometry.spatial).fill(1) : [];
  const shaped =
    ones.length > 0 ? b.reshape('update_kernel', update, [weight.out, weight.in, ...ones]) : update;
  const axis = isReadTransposed(weight) ? 0 : 1;
  const own = ownColumns(b, weight.name, structure, axis);
  const stored = b.cast('weight_cast', own, weight.dtype, dtype);
  const change = b.node('weight_change', 'Mul', [stored, shaped]);
  const wide = wideColumns(b, 'change_wide', change, structure, axis);
  const product = productWith(b, layer, b.cast('change_cast', wide, dtype, weight.dtype));
  // See matrixDelta: a second reader of the base keeps its operator from another kernel.
  return isDequantized(weight) ? likeBase(b, product, base) : product;
};

/** `W ∘ s·A·B` of a weight that the node reads as [in, out]. */
export const hadamardChange: WeightChange = (b, adapted) => {
  const { layer, structure, tensors } = adapted;
  const { weight } = layer;
  const own = ownColumns(b, weight.name, structure, 1);
  const stored = b.cast('weight_cast', own, weight.dtype, tensors.dtype);
  const update = updateAsRead(b, weight, structure, tensors);
  return amongColumns(b, b.node('weight_change', 'Mul', [stored, update]), adapted);
};
