import { expect, it } from 'vitest';
import { LossMeans } from '../../src/training/loss-means.js';

function trendOf(values: readonly number[]): number[] {
  const trend = new LossMeans(4);
  for (const value of values) trend.add(value);
  return trend.values();
}

it('keeps a short course as it is', () => {
  expect(trendOf([3, 2, 1])).toEqual([3, 2, 1]);
});

it('takes means over ever longer stretches of a long one', () => {
  expect(trendOf([1, 3, 5, 7])).toEqual([2, 6]);
  expect(trendOf([1, 3, 5, 7, 9])).toEqual([2, 6, 9]);
  const long = trendOf(Array.from({ length: 1000 }, (_, i) => i));
  expect(long.length).toBeLessThanOrEqual(4);
  expect(long).toEqual([...long].sort((a, b) => a - b));
});
