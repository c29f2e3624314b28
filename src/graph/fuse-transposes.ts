/**
 * Products with transposed operands as com.microsoft FusedMatMul, whose kernels read them in place: a
 * Transpose moves every number, and one of a constant would be kept as a second copy of it.
 */
import type { Attributes, GraphBuilder } from './builder.js';

const MICROSOFT = 'com.microsoft';

/** Rewrites `MatMul` nodes whose operand is a Transpose of the last two axes. For CPUs only. */
export function fuseTransposes(graph: GraphBuilder): void {
  const swaps = new Map<string, string>();
  for (const { opType, domain = '', inputs, outputs, attributes = {} } of graph.nodes) {
    if (opType !== 'Transpose' || domain !== '' || !swapsLast(attributes)) continue;
    swaps.set(outputs[0]!, inputs[0]!);
  }
  for (const [i, node] of graph.nodes.entries()) {
    if (node.opType !== 'MatMul' || (node.domain ?? '') !== '') continue;
    const sources = node.inputs.map((name) => swaps.get(name));
    if (sources.every((source) => source === undefined)) continue;
    const [transA, transB] = sources.map((source) => ({ int: source === undefined ? 0 : 1 }));
    const inputs = node.inputs.map((name, operand) => sources[operand] ?? name);
    const attributes = { transA: transA!, transB: transB! };
    graph.nodes[i] = { ...node, opType: 'FusedMatMul', domain: MICROSOFT, inputs, attributes };
    graph.importDomain(MICROSOFT, 1);
  }
}

function swapsLast({ perm }: Attributes): boolean {
  const axes = perm && 'ints' in perm ? perm.ints.map(Number) : [];
  const last = axes.length - 1;
  return (
    last > 0 &&
    axes.every((axis, i) => axis === (i === last ? last - 1 : i === last - 1 ? last : i))
  );
}
