/** A layer's own operator with another weight, and without a bias. */
import type { AttributeValue } from '../../onnx/encode.js';
import type { Node } from '../../onnx/model.js';
import type { LinearLayer } from '../targets/index.js';
import type { SubgraphBuilder } from './subgraph-builder.js';

// Gemm wants its third input up to here.
const OPTIONAL_BIAS = 11;

/** @param weight laid out as the one that the layer's node reads, in its type */
export function productWith(b: SubgraphBuilder, layer: LinearLayer, weight: string): string {
  const { input } = layer;
  const node = layer.product?.node ?? layer.node;
  const operands = layer.weight.input === 0 ? [weight, input] : [input, weight];
  const needsBias = node.opType === 'Gemm' && b.opset < OPTIONAL_BIAS;
  const bias = needsBias ? [b.zeros('no_bias', [1], layer.weight.dtype)] : [];
  return b.node('d', node.opType, [...operands, ...bias], attributesOf(node), node.domain);
}

/** The attributes of the product; that of a bias is not one of them. */
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
