/** The nodes and inputs that a value is computed from. */
import type { GraphBuilder } from './builder.js';
import { capturedBy } from './prune.js';

/** The value itself, and every value that it depends on. */
export function ancestorsOf({ nodes }: GraphBuilder, value: string): ReadonlySet<string> {
  const producers = new Map(nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
  const found = new Set<string>();
  const open = [value];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (name === '' || found.has(name)) continue;
    found.add(name);
    const node = producers.get(name);
    if (node) open.push(...node.inputs, ...capturedBy(node));
  }
  return found;
}
