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
    for (const name of [...node.inputs, ...capturedBy(node)]) needed.add(name);
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

/** Outer values that the bodies of a node read. */
export function capturedBy({ attributes = {} }: NewNode): readonly string[] {
  return Object.values(attributes).flatMap((value) => ('raw' in value ? value.captures : []));
}

function replaceAll<T>(list: T[], items: readonly T[]): void {
  list.length = 0;
  for (const item of items) list.push(item);
}
