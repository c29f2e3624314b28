import { isMadeOfConstants } from '../../graph/constants.js';
import type { ValueIndex } from '../../graph/uses.js';
import type { Node } from '../../onnx/model.js';
import type { Finding, Geometry } from './target.js';
import { findWeight, notTraced, weightInput } from './weight.js';

/** MatMul with a constant matrix on either side: `Y = X · W`, or `Y = Wᵀ · X`. */
export function matMul(values: ValueIndex, node: Node): Finding {
  return product(values, node, { transA: false, transB: false, alpha: 1, flat: false });
}

/** com.microsoft FusedMatMul: a MatMul with transposed operands and a factor. */
export function fusedMatMul(values: ValueIndex, node: Node): Finding {
  const flag = (name: string) => (node.attributes.get(name)?.i ?? 0) !== 0;
  if (flag('transBatchA') || flag('transBatchB')) {
    return { node, refusal: 'it moves a batch axis (transBatchA, transBatchB)' };
  }
  const alpha = node.attributes.get('alpha')?.f ?? 1;
  return product(values, node, {
    transA: flag('transA'),
    transB: flag('transB'),
    alpha,
    flat: false,
  });
}

/** A product's treatment of its operands. */
export interface Operands {
  readonly transA: boolean;
  readonly transB: boolean;
  readonly alpha: number;
  /** The operator takes matrices only. */
  readonly flat: boolean;
}

/** The linear layer in `alpha · A' · B'` with one constant operand. */
export function product(values: ValueIndex, node: Node, operands: Operands): Finding {
  const { transA, transB, alpha, flat } = operands;
  const left = weightInput(values, node, 0);
  const right = weightInput(values, node, 1);
  if (left && right) return { node, refusal: 'both its operands are constant' };
  if (!left && !right) {
    return { node, refusal: withoutWeight(values, node) };
  }
  // A' is [.., rows, in] and B' [in, out] where the weight is on the right; on the left the weight
  // is [out, in], the input [.., in, columns] and the output [.., out, columns].
  const weight = right
    ? findWeight(values, node, { input: 1, transposed: transB, factor: alpha })
    : findWeight(values, node, { input: 0, transposed: !transA, factor: alpha });
  if (typeof weight === 'string') return { node, refusal: weight };
  const geometry: Geometry = right
    ? { kind: 'matrix', inputColumns: transA, outputColumns: false, flat }
    : { kind: 'matrix', inputColumns: !transB, outputColumns: true, flat };
  const input = node.inputs[right ? 0 : 1]!;
  return { node, input, output: node.outputs[0]!, weight, geometry };
}

function withoutWeight(values: ValueIndex, node: Node): string {
  const { graph, inputs } = node;
  const constant = inputs.slice(0, 2).find((name) => isMadeOfConstants(values, graph, name));
  if (constant === undefined) return 'both its operands are computed: there is no weight to adapt';
  return notTraced(values, node, constant);
}
