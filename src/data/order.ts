/** Which samples make which batch. */
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import { generatorFor } from '../random.js';

export interface OrderOptions {
  /** Samples of the dataset. */
  readonly size: number;
  readonly batchSize: number;
  readonly seed: number;
  /** false: in the order of the file. */
  readonly shuffle: boolean;
  /** Length of a sample, where batches group samples of similar length. */
  readonly lengthOf?: ((sample: number) => number) | undefined;
}

/** Batches among whose samples those of like length find each other: enough to waste little padding. */
const BATCHES_PER_BUCKET = 32;

/**
 * The order with samples of like length in one batch. It is cut into buckets of some batches; in each,
 * samples are sorted by length, and the batches that this gives are shuffled. So every sample still
 * comes anywhere in the epoch, and the smaller batch that is left over stays at the end.
 */
export function byLength(
  order: Uint32Array,
  { batchSize, seed }: Pick<OrderOptions, 'batchSize' | 'seed'>,
  lengthOf: (sample: number) => number,
  epoch: number,
): Uint32Array {
  const result = new Uint32Array(order.length);
  const random = generatorFor(seed, 'buckets', String(epoch));
  const size = batchSize * BATCHES_PER_BUCKET;
  for (let start = 0; start < order.length; start += size) {
    const bucket = order.subarray(start, start + size);
    const whole = bucket.length - (bucket.length % batchSize);
    // The rest may be any samples, not the longest.
    const sorted = sortedBy(bucket.subarray(0, whole), lengthOf);
    const batches = Uint32Array.from({ length: whole / batchSize }, (_, i) => i);
    shuffleInPlace(batches, random);
    batches.forEach((batch, i) => {
      const samples = sorted.subarray(batch * batchSize, (batch + 1) * batchSize);
      result.set(samples, start + i * batchSize);
    });
    result.set(bucket.subarray(whole), start + whole);
  }
  return result;
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
  shuffleInPlace(order, generatorFor(seed, 'order', String(epoch)));
  return order;
}

/** Fisher and Yates. */
function shuffleInPlace(values: Uint32Array, random: RandomGenerator): void {
  for (let last = values.length - 1; last > 0; last--) {
    const other = uniformInt(random, 0, last);
    [values[last], values[other]] = [values[other]!, values[last]!];
  }
}

/** Samples of the same length keep their order. */
function sortedBy(samples: Uint32Array, lengthOf: (sample: number) => number): Uint32Array {
  const { length } = samples;
  // Length before place in one number: sorting numbers calls no function for each comparison.
  const keys = Float64Array.from(samples, (sample, i) => lengthOf(sample) * length + i).sort();
  return Uint32Array.from(keys, (key) => samples[key % length]!);
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
      const { options } = this;
      const order = sampleOrder(options, epoch);
      const lengthOf = options.shuffle ? options.lengthOf : undefined;
      this.current = { epoch, order: lengthOf ? byLength(order, options, lengthOf, epoch) : order };
    }
    return this.current.order;
  }
}
