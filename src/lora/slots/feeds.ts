/** The graph inputs of slots as tensors. */
import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';
import { tensorFromNumbers } from '../../runtime/tensor-value.js';
import type { Slot } from './manifest.js';

/** Nothing in every slot: with a rank of 0 the model computes what its base does. */
export function emptyFeeds(slots: readonly Slot[]): Feeds {
  const none = new Float64Array();
  return new Map(slots.flatMap((slot) => slotFeeds(slot, 0, none, none)));
}

/** The two inputs of a slot from factors a [in, rank] and b [rank, out]. */
export function slotFeeds(
  { a, b, dtype, ...sizes }: Slot,
  rank: number,
  factorA: Float64Array,
  factorB: Float64Array,
): [string, TensorValue][] {
  return [
    [a, tensorFromNumbers(dtype, [sizes.in, rank], factorA)],
    [b, tensorFromNumbers(dtype, [rank, sizes.out], factorB)],
  ];
}
