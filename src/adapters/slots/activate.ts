/** Adapters at work: what is fed to the slots while they are. */
import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';
import { plainFactors, plainRank } from '../factors/plain.js';
import type { Slot } from '../model/slot-manifest.js';
import { isPlain } from '../structure/structure.js';
import { emptyRank, slotFeeds } from './feeds.js';
import type { SlotAdapter, SlotAdapters } from './load.js';

/** An adapter, and what its ΔW is multiplied with. */
export interface Share {
  readonly slots: SlotAdapters;
  readonly weight: number;
}

/**
 * The inputs of all slots for `W + Σ wᵢ·sᵢ·Aᵢ·Bᵢ`: in each slot the adapters' factors side by side, the
 * rank of their ranks together. A slot that no adapter changes is empty.
 */
export function activate(
  slots: readonly Slot[],
  shares: readonly Share[],
  provider: string,
): Feeds {
  return new Map(slots.flatMap((slot) => fill(slot, shares, emptyRank(provider))));
}

function fill(slot: Slot, shares: readonly Share[], least: number): [string, TensorValue][] {
  const parts = shares.flatMap(({ slots, weight }) => {
    const adapter = slots.get(slot);
    return adapter && weight !== 0 ? [{ adapter, weight }] : [];
  });
  const [only] = parts;
  if (parts.length === 1 && only!.weight === 1 && isFedAsItIs(slot, only!.adapter)) {
    return sharedFeeds(slot, only!.adapter);
  }
  const ranks = parts.reduce((sum, { adapter }) => sum + plainRank(adapter.structure), 0);
  const rank = Math.max(ranks, least);
  const a = new Float64Array(slot.in * rank);
  const b = new Float64Array(rank * slot.out);
  let at = 0;
  for (const { adapter, weight } of parts) at += put(adapter, weight, { a, b, rank, at });
  return slotFeeds(slot, rank, a, b);
}

/** Plain LoRA needs no other tensors than its own. */
function isFedAsItIs({ dtype }: Slot, { structure, factors: { a } }: SlotAdapter): boolean {
  const stored = a instanceof Float32Array ? 'float32' : 'float64';
  return isPlain(structure) && structure.hybridRank === 0 && stored === dtype;
}

function sharedFeeds(slot: Slot, { structure, factors }: SlotAdapter): [string, TensorValue][] {
  const { blockRank: rank } = structure;
  return [
    [slot.a, { dtype: slot.dtype, dims: [slot.in, rank], data: factors.a }],
    [slot.b, { dtype: slot.dtype, dims: [rank, slot.out], data: factors.b }],
  ];
}

/** Writes an adapter into the columns of a and rows of b from `at` on, and gives its rank. */
function put(
  { structure, factors }: SlotAdapter,
  weight: number,
  { a, b, rank, at }: { a: Float64Array; b: Float64Array; rank: number; at: number },
): number {
  const plain = plainFactors(structure, factors);
  for (let row = 0; row < structure.in; row++) {
    const from = row * plain.rank;
    a.set(plain.a.subarray(from, from + plain.rank), row * rank + at);
  }
  const start = at * structure.out;
  for (let i = 0; i < plain.b.length; i++) b[start + i] = weight * plain.b[i]!;
  return plain.rank;
}
