/** The part of graphs that some of their values depend on, as a graph of its own. */
import type { NewNode } from '../onnx/encode.js';
import { GraphBuilder } from './builder.js';
import { capturedBy } from './prune.js';

/**
 * A graph with `outputs`, whose values are those of the first of `graphs` that has them: a later one is
 * what an earlier one was before it lost nodes.
 * @param read what nodes read, where they are to read something else
 */
export function partOf(
  graphs: readonly [GraphBuilder, ...GraphBuilder[]],
  outputs: readonly string[],
  read: ReadonlyMap<string, string> = new Map(),
): GraphBuilder {
  const [first] = graphs;
  const part = new GraphBuilder(first.opsets, first.irVersion);
  const { values, nodes } = neededFor(graphs, outputs, read);
  const all = [...graphs].reverse().flatMap(({ inputs }) => inputs);
  const inputs = new Map(all.map((input) => [input.name, input]));
  for (const input of inputs.values()) if (values.has(input.name)) part.inputs.push(input);
  for (const graph of graphs) {
    for (const tensor of graph.initializers.values()) {
      const isNew = values.has(tensor.name) && !part.initializers.has(tensor.name);
      if (isNew) part.addInitializer(tensor);
    }
    // Graphs share their nodes.
    for (const node of graph.nodes) if (nodes.delete(node)) part.add(reading(node, read));
  }
  for (const name of outputs) part.outputs.push({ name, dtype: undefined, shape: null });
  return part;
}

/** The nodes that some values depend on, and the values that these read. */
function neededFor(
  graphs: readonly GraphBuilder[],
  outputs: readonly string[],
  read: ReadonlyMap<string, string>,
) {
  const producers = new Map<string, NewNode>();
  for (const graph of [...graphs].reverse()) {
    for (const node of graph.nodes) for (const name of node.outputs) producers.set(name, node);
  }
  const values = new Set<string>();
  const nodes = new Set<NewNode>();
  const open = [...outputs];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (values.has(name)) continue;
    values.add(name);
    const node = producers.get(name);
    if (!node || nodes.has(node)) continue;
    nodes.add(node);
    open.push(...reading(node, read).inputs, ...capturedBy(node));
  }
  return { values, nodes };
}

function reading(node: NewNode, read: ReadonlyMap<string, string>): NewNode {
  if (!node.inputs.some((name) => read.has(name))) return node;
  return { ...node, inputs: node.inputs.map((name) => read.get(name) ?? name) };
}
