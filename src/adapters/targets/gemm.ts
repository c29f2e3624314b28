import type { ValueIndex } from '../../graph/uses.js';
import type { Node } from '../../onnx/model.js';
import { product } from './matmul.js';
import type { Finding } from './target.js';

/** Gemm: `Y = alpha · A' · B' + beta · C` with a constant B, or a constant A. */
export function gemm(values: ValueIndex, node: Node): Finding {
  return product(values, node, {
    transA: (node.attributes.get('transA')?.i ?? 0) !== 0,
    transB: (node.attributes.get('transB')?.i ?? 0) !== 0,
    alpha: node.attributes.get('alpha')?.f ?? 1,
    flat: true,
  });
}
