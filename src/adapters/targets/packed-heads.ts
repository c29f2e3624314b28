/** Operators of attention that take query, key and value in one input. */
import type { Node } from '../../onnx/model.js';

/** Operators whose first input holds all of them where the next two are left out, heads one after the other. */
const PACKING = new Set(['GroupQueryAttention', 'PagedAttention', 'SparseAttention']);

/**
 * The numbers of heads of query, key and value in an input: `by head` where those of a head lie together;
 * undefined for an input that holds one of them, or of another operator.
 */
export function packedHeads(node: Node, input: number): readonly number[] | 'by head' | undefined {
  const { domain, opType, inputs, attributes } = node;
  if (domain !== 'com.microsoft') return undefined;
  if (opType === 'MultiHeadAttention') {
    const isQkv = input === 0 && !inputs[1] && !inputs[2];
    const isKv = input === 1 && !inputs[2];
    return isQkv || isKv ? 'by head' : undefined;
  }
  if (!PACKING.has(opType) || input !== 0 || inputs[1] || inputs[2]) return undefined;
  const [queries, keys] = ['num_heads', 'kv_num_heads'].map((name) => attributes.get(name)?.i);
  return queries && keys ? [queries, keys, keys] : undefined;
}
