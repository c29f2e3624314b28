import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { convertBatch, convertTensor, isTaken } from '../../src/data/convert.js';
import type { DataTypeName } from '../../src/onnx/dtype.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';

const integers = ['bool', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64'];
const floats = ['float16', 'float32', 'float64'];

const plan = { feeds: [], ownLabels: undefined, allFrames: false };

describe('isTaken', () => {
  it('takes integers where the type holds them all', () => {
    const taken = (from: string) =>
      integers.filter((to) => isTaken(from as DataTypeName, to as DataTypeName)).join(' ');
    expect(taken('bool')).toBe(integers.join(' '));
    expect(taken('int8')).toBe('int8 int16 int32 int64');
    expect(taken('uint8')).toBe('uint8 int16 uint16 int32 uint32 int64 uint64');
    expect(taken('uint16')).toBe('uint16 int32 uint32 int64 uint64');
    expect(taken('uint32')).toBe('uint32 int64 uint64');
    expect(taken('int64')).toBe('int64');
    expect(taken('uint64')).toBe('uint64');
  });

  it('takes any floats for floats, and never floats for integers or integers for floats', () => {
    for (const a of floats) {
      for (const b of floats) expect(isTaken(a as DataTypeName, b as DataTypeName)).toBe(true);
      for (const b of integers) {
        expect(isTaken(a as DataTypeName, b as DataTypeName)).toBe(false);
        expect(isTaken(b as DataTypeName, a as DataTypeName)).toBe(false);
      }
    }
  });
});

describe('convertTensor', () => {
  it('keeps integers when they are widened', () => {
    const value: TensorValue = { dtype: 'int32', dims: [3], data: Int32Array.of(-(2 ** 31), 0, 7) };
    expect(convertTensor(value, 'int64').data).toEqual(BigInt64Array.of(-(2n ** 31n), 0n, 7n));
  });

  it('rounds floats to the nearest', () => {
    const value: TensorValue = { dtype: 'float64', dims: [2], data: Float64Array.of(0.1, 1e300) };
    expect([...convertTensor(value, 'float32').data]).toEqual([Math.fround(0.1), Infinity]);
    const half = convertTensor(
      { dtype: 'float32', dims: [1], data: Float32Array.of(1) },
      'float16',
    );
    expect(half.data).toEqual(Uint16Array.of(0x3c00));
  });
});

describe('convertBatch', () => {
  it('gives each input its own type, under its own name', () => {
    const batch = new Map<string, TensorValue>([
      ['target', { dtype: 'uint8', dims: [2], data: Uint8Array.of(1, 2) }],
      ['other', { dtype: 'uint8', dims: [2], data: Uint8Array.of(1, 2) }],
    ]);
    const feed = { name: 'labels', key: 'target', dtype: 'int64', group: 1 } as const;
    expect(convertBatch(batch, { ...plan, feeds: [feed] })).toEqual(
      new Map([['labels', { dtype: 'int64', dims: [2], data: BigInt64Array.of(1n, 2n) }]]),
    );
  });

  it('puts the first rows of all pairs or triples before the second ones', () => {
    fc.assert(
      fc.property(fc.nat(6), fc.nat(4), fc.constantFrom(2, 3), (count, width, group) => {
        const value = (i: number, part: number, j: number) => 100 * i + 10 * part + j;
        const numbers = Array.from({ length: group }, (_, part) =>
          Array.from({ length: count }, (__, i) =>
            Array.from({ length: width }, (___, j) => value(i, part, j)),
          ),
        );
        const given = numbers[0]!.flatMap((_, i) => numbers.flatMap((part) => part[i]!));
        const batch = new Map<string, TensorValue>([
          ['x', { dtype: 'int32', dims: [count, group, width], data: Int32Array.from(given) }],
        ]);
        const feed = { name: 'x', key: 'x', dtype: 'int32', group } as const;
        const x = convertBatch(batch, { ...plan, feeds: [feed] }).get('x')!;
        expect(x.dims).toEqual([group * count, width]);
        expect([...x.data]).toEqual(numbers.flat(2));
      }),
    );
  });

  it('makes labels of the ids that are not masked', () => {
    const feed = (name: string) => ({ name, key: name, dtype: 'int32', group: 1 }) as const;
    const batch = new Map<string, TensorValue>([
      ['ids', { dtype: 'int32', dims: [2, 2], data: Int32Array.of(5, 6, 7, 0) }],
      ['mask', { dtype: 'int32', dims: [2, 2], data: Int32Array.of(1, 1, 1, 0) }],
    ]);
    const feeds = [feed('ids'), feed('mask')];
    const labels = (mask: string | undefined) =>
      convertBatch(batch, { ...plan, feeds, ownLabels: { ids: 'ids', mask, ignoreIndex: -1 } }).get(
        'labels',
      );
    expect(labels('mask')).toEqual({
      dtype: 'int64',
      dims: [2, 2],
      data: BigInt64Array.of(5n, 6n, 7n, -1n),
    });
    expect(labels(undefined)!.data).toEqual(BigInt64Array.of(5n, 6n, 7n, 0n));
    expect(batch.get('ids')!.data).toEqual(Int32Array.of(5, 6, 7, 0));
  });
});
