/**
 * Nodes that depend on no input, in front of all others. ONNX Runtime starts at the end of a graph and
 * looks at those of a node's inputs first that stand last: a weight that is dequantized right in front
 * of its product would be computed before everything that leads to the product, and so would the next
 * layer's: the float copies of all weights at once, in each run.
 */
import type { NewNode } from '../onnx/encode.js';
import type { GraphBuilder } from './builder.js';
import { capturedBy } from './prune.js';

/** Moves them; nodes keep their order otherwise. */
export function constantsFirst(graph: GraphBuilder): void {
  const fed = new Set(graph.inputs.map(({ name }) => name));
  const constants: NewNode[] = [];
  const others: NewNode[] = [];
  for (const node of graph.nodes) {
    const depends = [...node.inputs, ...capturedBy(node)].some((name) => fed.has(name));
    (depends ? others : constants).push(node);
    if (depends) for (const name of node.outputs) fed.add(name);
  }
  graph.nodes.splice(0, graph.nodes.length);
  for (const node of [...constants, ...others]) graph.nodes.push(node);
}
