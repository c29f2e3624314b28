/** The graph inputs of slots as tensors. */
import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';
import { tensorFromNumbers } from '../../runtime/tensor-value.js';
import type { Slot } from '../model/slot-manifest.js';

/**
 * The rank of a slot that nothing is in: 0, but one rank of zeros where that is not known to run. On
 * WebGPU a tensor without elements ends the process.
 */
export function emptyRank(provider: string): 0 | 1 {
  return provider === 'cpu' ? 0 : 1;
}

/** Nothing in every slot: the model computes what its base does. */
export function emptyFeeds(slots: readonly Slot[], provider = 'cpu'): Feeds {
  const rank = emptyRank(provider);
  return new Map(
    slots.flatMap((slot) =>
      slotFeeds(slot, rank, new Float64Array(slot.in * rank), new Float64Array(rank * slot.out)),
    ),
  );
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
