/** Which samples make which batch. */
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { generatorFor } from '../../lora/init.js';

export interface OrderOptions {
  /** Samples of the dataset. */
  readonly size: number;
  readonly batchSize: number;
  readonly seed: number;
  /** false: as they stand in the file. */
  readonly shuffle: boolean;
}

/**
 * The order of the samples in one epoch, a permutation of 0 to `size` - 1. It depends on nothing but
 * its arguments: not on the batch size, and not on what was drawn before.
 */
export function sampleOrder(
  { size, seed, shuffle }: Pick<OrderOptions, 'size' | 'seed' | 'shuffle'>,
  epoch: number,
): Uint32Array {
  const order = Uint32Array.from({ length: size }, (_, i) => i);
  if (!shuffle) return order;
  const random = generatorFor(seed, 'order', String(epoch));
  // Fisher and Yates.
  for (let last = size - 1; last > 0; last--) {
    const other = uniformInt(random, 0, last);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}

/**
 * The batches of all epochs, counted from 0. An epoch ends with what is left over, as a smaller
 * batch, and no batch reaches into the next epoch. Any batch can be asked for at any time, so a
 * resumed run only needs to know how many it had.
 */
export class BatchOrder {
  readonly batchesPerEpoch: number;
  private current: { readonly epoch: number; readonly order: Uint32Array } | undefined;

  constructor(private readonly options: OrderOptions) {
    this.batchesPerEpoch = Math.ceil(options.size / options.batchSize);
  }

  /** The epoch that a batch belongs to, counted from 0. */
  epochOf(batch: number): number {
    return Math.floor(batch / this.batchesPerEpoch);
  }

  /** The numbers of the samples in a batch. */
  indices(batch: number): Uint32Array {
    const { batchSize } = this.options;
    const start = (batch % this.batchesPerEpoch) * batchSize;
    return this.orderOf(this.epochOf(batch)).subarray(start, start + batchSize);
  }

  private orderOf(epoch: number): Uint32Array {
    if (this.current?.epoch !== epoch) {
      this.current = { epoch, order: sampleOrder(this.options, epoch) };
    }
    return this.current.order;
  }
}
