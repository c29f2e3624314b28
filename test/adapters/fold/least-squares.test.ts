import { expect, test } from 'vitest';
import { bestScale, codeOf } from '../../../src/adapters/fold/least-squares.js';
import { randomNumbers } from '../../support/adapters.js';

const range = { low: 0, high: 15, zero: 8, signed: true };
const exact = (scale: number) => scale;
const errorOf = (values: Float64Array, scale: number) =>
  values.reduce((sum, v) => sum + (v - scale * (codeOf(v, scale, range) - range.zero)) ** 2, 0);

test('numbers that are integers times a scale keep it', () => {
  const values = Float64Array.from([-8, 7, 3, 0, -1, 5], (code) => 0.125 * code);
  const scale = bestScale(values, range, 0.125, exact);
  expect(errorOf(values, scale)).toBe(0);
  expect(Math.abs(scale)).toBeCloseTo(0.125, 12);
});

test('no scale of a fine grid is better by more than a hundredth', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const values = randomNumbers(seed, 32).map((v) => v ** 3);
    const found = errorOf(values, bestScale(values, range, 0.3, exact));
    const grid = Array.from({ length: 4000 }, (_, i) => (i - 2000) / 10_000).filter((s) => s !== 0);
    const least = Math.min(...grid.map((scale) => errorOf(values, scale)));
    expect(found).toBeLessThan(1.01 * least + 1e-12);
  }
});

test('zeros get the integer of zero', () => {
  const zeros = new Float64Array(4);
  const scale = bestScale(zeros, range, 0, exact);
  expect(codeOf(0, scale, range)).toBe(8);
});

test('a scale below 0 is left to those that may have one', () => {
  const values = Float64Array.of(8, -7, 1);
  expect(bestScale(values, range, 1.1, exact)).toBeLessThan(0);
  expect(bestScale(values, { ...range, signed: false }, 1.1, exact)).toBeGreaterThan(0);
});

test('codes are integers where the zero point is none, and no farther off than half a step', () => {
  const between = { low: 0, high: 15, zero: 7.3, signed: true };
  for (const value of randomNumbers(3, 32)) {
    const code = codeOf(value, 0.4, between);
    expect(Number.isInteger(code)).toBe(true);
    if (code > 0 && code < 15) {
      expect(Math.abs(value - 0.4 * (code - 7.3))).toBeLessThanOrEqual(0.2 + 1e-12);
    }
  }
  expect(codeOf(0, 0, between)).toBe(7);
});
