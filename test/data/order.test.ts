import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BatchOrder, byLength, sampleOrder } from '../../src/data/order.js';

const anyOrder = fc.record({
  size: fc.integer({ min: 1, max: 50 }),
  batchSize: fc.integer({ min: 1, max: 20 }),
  seed: fc.integer({ min: 0, max: 2 ** 31 }),
  shuffle: fc.boolean(),
});

describe('sampleOrder', () => {
  it('is a permutation, the same for the same seed and epoch', () => {
    fc.assert(
      fc.property(anyOrder, fc.nat(1000), (options, epoch) => {
        const order = sampleOrder(options, epoch);
        expect([...order].sort((a, b) => a - b)).toEqual([...Array(options.size).keys()]);
        expect(sampleOrder(options, epoch)).toEqual(order);
      }),
    );
  });

  it('differs between seeds and between epochs', () => {
    const of = (seed: number, epoch: number) =>
      sampleOrder({ size: 30, seed, shuffle: true }, epoch).join();
    const orders = [of(0, 0), of(0, 1), of(1, 0), of(1, 1), of(11, 0), of(1, 10)];
    expect(new Set(orders).size).toBe(orders.length);
  });

  it('is the one of the file without shuffling', () => {
    expect([...sampleOrder({ size: 4, seed: 3, shuffle: false }, 7)]).toEqual([0, 1, 2, 3]);
  });

  it('puts every sample in every place about equally often', () => {
    const [size, epochs] = [6, 6000];
    const counts = Array.from({ length: size }, () => Array<number>(size).fill(0));
    for (let epoch = 0; epoch < epochs; epoch++) {
      sampleOrder({ size, seed: 0, shuffle: true }, epoch).forEach((sample, place) => {
        counts[sample]![place]!++;
      });
    }
    // Five standard deviations of a binomial count.
    const expected = epochs / size;
    const spread = 5 * Math.sqrt(expected * (1 - 1 / size));
    for (const count of counts.flat()) expect(Math.abs(count - expected)).toBeLessThan(spread);
  });
});

describe('byLength', () => {
  const lengthOf = (sample: number) => (sample * 7919) % 101;
  const options = { batchSize: 4, seed: 5 };

  it('is a permutation of the order, the same for the same seed and epoch', () => {
    fc.assert(
      fc.property(anyOrder, fc.nat(1000), (any, epoch) => {
        const order = sampleOrder(any, epoch);
        const sorted = byLength(order, any, lengthOf, epoch);
        expect([...sorted].sort((a, b) => a - b)).toEqual([...order].sort((a, b) => a - b));
        expect(byLength(order, any, lengthOf, epoch)).toEqual(sorted);
      }),
    );
  });

  it('puts samples of like length into one batch, and batches in no order', () => {
    const order = sampleOrder({ size: 128, seed: 5, shuffle: true }, 0);
    const sorted = byLength(order, options, lengthOf, 0);
    const spans = (samples: Uint32Array) =>
      Array.from({ length: 32 }, (_, batch) => {
        const lengths = Array.from(samples.subarray(4 * batch, 4 * batch + 4), lengthOf);
        return Math.max(...lengths) - Math.min(...lengths);
      });
    expect(Math.max(...spans(sorted))).toBeLessThan(10);
    expect(Math.min(...spans(order))).toBeGreaterThan(10);
    const firsts = Array.from({ length: 32 }, (_, batch) => lengthOf(sorted[4 * batch]!));
    expect(firsts).not.toEqual([...firsts].sort((a, b) => a - b));
  });

  it('leaves the smaller last batch where it is, of samples of any length', () => {
    const order = sampleOrder({ size: 130, seed: 5, shuffle: true }, 0);
    expect(byLength(order, options, lengthOf, 0).slice(-2)).toEqual(order.slice(-2));
  });

  it('mixes anew in every epoch', () => {
    const order = sampleOrder({ size: 128, seed: 5, shuffle: true }, 0);
    const of = (seed: number, epoch: number) =>
      byLength(order, { ...options, seed }, lengthOf, epoch).join();
    expect(new Set([of(5, 0), of(5, 1), of(6, 0)]).size).toBe(3);
  });
});

describe('BatchOrder', () => {
  it('takes samples of like length together where it shuffles, and only there', () => {
    const given = { size: 128, batchSize: 4, seed: 1, lengthOf: (sample: number) => sample % 8 };
    const lengths = (shuffle: boolean) =>
      Array.from(new BatchOrder({ ...given, shuffle }).indices(3), given.lengthOf);
    expect(lengths(false)).toEqual([4, 5, 6, 7]);
    expect(new Set(lengths(true)).size).toBe(1);
  });

  it('goes through each epoch once, with the rest as a smaller batch', () => {
    fc.assert(
      fc.property(anyOrder, fc.nat(5), (options, epoch) => {
        const order = new BatchOrder(options);
        const { batchesPerEpoch: count } = order;
        const batches = Array.from({ length: count }, (_, i) => order.indices(epoch * count + i));
        expect(batches.flatMap((batch) => [...batch])).toEqual([...sampleOrder(options, epoch)]);
        expect(batches.slice(0, -1).every(({ length }) => length === options.batchSize)).toBe(true);
        expect(order.epochOf(epoch * count)).toBe(epoch);
        expect(order.epochOf(epoch * count + count - 1)).toBe(epoch);
      }),
    );
  });

  it('gives a batch without those before it', () => {
    const options = { size: 23, batchSize: 4, seed: 5, shuffle: true };
    const whole = new BatchOrder(options);
    const batches = Array.from({ length: 20 }, (_, i) => [...whole.indices(i)]);
    for (const i of [19, 3, 11, 0]) {
      expect([...new BatchOrder(options).indices(i)]).toEqual(batches[i]);
    }
  });
});
