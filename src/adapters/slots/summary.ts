/** Slots in the results of patch and inspect: the JSON of the public contract. */
import type { Slot } from '../model/slot-manifest.js';

/** A slot: the place of an adapter that is fed when the model runs. */
export interface SlotSummary {
  /** Name of the slot, after the path of the module where it is known. */
  readonly name: string;
  /** in, out */
  readonly shape: readonly [number, number];
  /** Type of A and B. */
  readonly dtype: Slot['dtype'];
  /** The graph inputs A [in, rank] and B [rank, out]. */
  readonly a: string;
  /** Name of the graph input B, [rank, out]. */
  readonly b: string;
  /** Names of the nodes that it stands beside. */
  readonly nodes: readonly string[];
}

export function slotSummary({ name, in: rows, out, dtype, a, b, sites }: Slot): SlotSummary {
  return { name, shape: [rows, out], dtype, a, b, nodes: sites.map(({ node }) => node) };
}
