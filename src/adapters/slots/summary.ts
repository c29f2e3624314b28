/** What patch and inspect say about slots: the JSON of the public contract. */
import type { Slot } from '../model/slot-manifest.js';

export interface SlotSummary {
  readonly name: string;
  /** in, out */
  readonly shape: readonly [number, number];
  readonly dtype: Slot['dtype'];
  /** The graph inputs A [in, rank] and B [rank, out]. */
  readonly a: string;
  readonly b: string;
  /** Names of the nodes that it stands beside. */
  readonly nodes: readonly string[];
}

export function slotSummary({ name, in: rows, out, dtype, a, b, sites }: Slot): SlotSummary {
  return { name, shape: [rows, out], dtype, a, b, nodes: sites.map(({ node }) => node) };
}
