/** The size that a difference is a share of. */
import { expect, test } from 'vitest';
import { deviationOf } from '../../src/runtime/deviation.js';
import { Differences } from '../../src/runtime/difference.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';

const tensor = (...values: number[]): TensorValue => {
  return { dtype: 'float32', dims: [values.length], data: Float32Array.from(values) };
};

test.each([
  ['is the greatest number', [2, -4, 1], [2, -4, 1.5], 4],
  ['is not one that stands for -∞ in both', [2, -1e9, 1], [2, -1e9, 1.5], 2],
  [
    'is not the least float16, nor an infinity',
    [2, -65504, -Infinity],
    [2.5, -65504, -Infinity],
    2,
  ],
  ['is a great number that differs', [2, -1e9], [2, -1e9 + 1e6], 1e9],
  ['is a great number that is not far from the others', [20, 6000], [20.5, 6000], 6000],
  ['is a pixel among small numbers', [0.001, 640], [0.002, 640], 640],
  ['is the only number there is', [0, -1e9], [0, -1e9], 1e9],
])('%s', (_, reference, other, size) => {
  const [a, b] = [tensor(...reference), tensor(...other)];
  const differences = new Differences();
  differences.add('y', a, b);
  const [{ magnitude, maxAbsDiff }] = differences.outputs as [(typeof differences.outputs)[0]];
  expect(magnitude).toBe(size);
  expect(deviationOf(a, b).share).toBe(maxAbsDiff / size);
});
