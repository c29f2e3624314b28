/**
 * `X · (W ∘ s·A·B)`, the layer's own operator with another weight. That weight is made of constants: a
 * runtime computes it once, when it loads, and keeps it beside W.
 */
import type { AttributeValue } from '../../onnx/encode.js';
import type { Node } from '../../onnx/model.js';
import { isDequantized } from '../targets/weight.js';
import { updateAsRead } from './dense.js';
import { type Change, likeBase } from './subgraph.js';

export const hadamardProduct: Change = (b, { layer, structure, tensors, base }) => {
  const { node, weight, geometry, input } = layer;
  const { dtype } = tensors;
  const update = updateAsRead(b, weight, structure, tensors);
  const ones = geometry.kind === 'channels' ? Array<number>(geometry.spatial).fill(1) : [];
  const shaped =
    ones.length > 0 ? b.reshape('update_kernel', update, [weight.out, weight.in, ...ones]) : update;
  const stored = b.cast('weight_cast', weight.name, weight.dtype, dtype);
  const change = b.node('weight_change', 'Mul', [stored, shaped]);
  const cast = b.cast('change_cast', change, dtype, weight.dtype);
  const inputs = weight.input === 0 ? [cast, input] : [input, cast];
  const product = b.node('d', node.opType, inputs, attributesOf(node), node.domain);
  // See matrixDelta: a second reader of the base keeps its operator from another kernel.
  return isDequantized(weight) ? likeBase(b, product, base) : product;
};

/** The attributes that say how the operator multiplies; that of a bias is none of them. */
function attributesOf({ attributes }: Node): Record<string, AttributeValue> {
  const kept = [...attributes].filter(([name]) => name !== 'beta');
  return Object.fromEntries(
    kept.flatMap(([name, { i, f, s, ints }]): [string, AttributeValue][] => {
      if (i !== undefined) return [[name, { int: i }]];
      if (f !== undefined) return [[name, { float: f }]];
      if (s !== undefined) return [[name, { text: s }]];
      return ints.length > 0 ? [[name, { ints }]] : [];
    }),
  );
}
