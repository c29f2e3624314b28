/**
 * com.microsoft Attention without a bias, as one with zeros: ONNX Runtime's kernel for CPUs reads memory that is not
 * its own there, and the process ends.
 */
import type { NewNode, NewTensor } from '../onnx/encode.js';
import type { GraphBuilder } from './builder.js';

const [WEIGHT, BIAS] = [1, 2];

/** Whether a node is one. */
export function lacksBias({
  opType,
  domain,
  inputs,
}: Pick<NewNode, 'opType' | 'domain' | 'inputs'>): boolean {
  return opType === 'Attention' && domain === 'com.microsoft' && !inputs[BIAS];
}

export function addZeroBiases(graph: GraphBuilder): void {
  if (!graph.nodes.some(lacksBias)) return;
  const makers = new Map(graph.nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
  for (const [i, node] of graph.nodes.entries()) {
    if (!lacksBias(node)) continue;
    const weight = storedWeight(graph, makers, node.inputs[WEIGHT] ?? '');
    if (!weight) continue;
    const inputs = [...node.inputs];
    const values = Array<number>(weight.dims[1]!).fill(0);
    inputs[BIAS] = graph.constant(weight.dtype, [values.length], values);
    graph.nodes[i] = { ...node, inputs };
  }
}

/** The matrix that a value is, or that it is a changed form of. */
function storedWeight(
  { initializers }: GraphBuilder,
  makers: ReadonlyMap<string, NewNode>,
  name: string,
): NewTensor | undefined {
  for (let at: string | undefined = name; at !== undefined; at = makers.get(at)?.inputs[0]) {
    const stored = initializers.get(at);
    if (stored) return stored.dims.length === 2 ? stored : undefined;
  }
  return undefined;
}
