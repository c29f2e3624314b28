/**
 * Inputs that we add to a model's graph have names of their own (`labels`, `theta`, `lr`), unless the
 * model has a value of that name: then they give way, and this says what they are called instead.
 */
import type { Feeds } from '../runtime/tensor-value.js';

/** Inputs that are called otherwise in the graph, by what they are. */
export type Renamed = ReadonlyMap<string, string>;

/** The name of an input in the graph. */
export function nameIn(renamed: Renamed, name: string): string {
  return renamed.get(name) ?? name;
}

/** Feeds by the names that the graph has. */
export function feedsIn(renamed: Renamed, feeds: Feeds): Feeds {
  if (renamed.size === 0) return feeds;
  return new Map([...feeds].map(([name, value]) => [nameIn(renamed, name), value]));
}
