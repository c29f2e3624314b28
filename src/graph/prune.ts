/** Takes out of a graph what its outputs do not depend on. */
import type { NewNode } from '../onnx/encode.js';
import type { GraphBuilder } from './builder.js';

/** Removes nodes, initializers and inputs that no output needs. */
export function prune(graph: GraphBuilder): void {
  const needed = new Set(graph.outputs.map(({ name }) => name));
  const kept: NewNode[] = [];
  for (const node of [...graph.nodes].reverse()) {
    if (!node.outputs.some((name) => needed.has(name))) continue;
    kept.push(node);
    for (const name of [...node.inputs, ...capturedBy(graph, node)]) needed.add(name);
  }
  replaceAll(graph.nodes, kept.reverse());
  replaceAll(
    graph.inputs,
    graph.inputs.filter(({ name }) => needed.has(name)),
  );
  for (const name of graph.initializers.keys()) {
    if (!needed.has(name)) graph.initializers.delete(name);
  }
}

/** Values of the graph that a body within the node reads: any, where it does not say which. */
function capturedBy(graph: GraphBuilder, { attributes = {} }: NewNode): readonly string[] {
  const bodies = Object.values(attributes).filter((value) => 'raw' in value);
  if (bodies.every(({ captures }) => captures)) return bodies.flatMap(({ captures }) => captures!);
  const values = graph.nodes.flatMap(({ outputs }) => outputs);
  return [...values, ...graph.initializers.keys(), ...graph.inputs.map(({ name }) => name)];
}

function replaceAll<T>(list: T[], items: readonly T[]): void {
  list.length = 0;
  for (const item of items) list.push(item);
}
