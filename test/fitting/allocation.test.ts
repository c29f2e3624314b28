import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type Choice,
  type Curve,
  withinBudget,
  withinError,
} from '../../src/fitting/allocation.js';

/** A curve from what each further rank adds, the largest first as with singular values. */
function curve(unit: number, ...gains: number[]): Curve {
  const captured = new Float64Array(gains.length + 1);
  gains.forEach((gain, i) => {
    captured[i + 1] = captured[i]! + gain;
  });
  return { unit, captured };
}

const sum = (plan: readonly Choice[], key: 'parameters' | 'captured') =>
  plan.reduce((total, choice) => total + choice[key], 0);

/** Every plan there is. */
function* allPlans(layers: readonly (readonly Curve[])[]): Generator<[number, number]> {
  const [first, ...rest] = layers;
  if (!first) {
    yield [0, 0];
    return;
  }
  for (const { unit, captured } of first) {
    for (const [rank, own] of captured.entries()) {
      for (const [cost, gain] of allPlans(rest)) yield [cost + rank * unit, gain + own];
    }
  }
}

const gains = fc
  .array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 3 })
  .map((list) => list.sort((a, b) => b - a));
const curves = fc
  .tuple(fc.integer({ min: 1, max: 6 }), gains)
  .map(([unit, list]) => curve(unit, ...list));
const problems = fc.array(fc.array(curves, { minLength: 2, maxLength: 2 }), {
  minLength: 1,
  maxLength: 3,
});

test('parameters go where they capture the most', () => {
  const layers = [[curve(10, 5, 4)], [curve(10, 100, 1)], [curve(5, 30, 30)]];
  expect(withinBudget(layers, 20).map(({ rank }) => rank)).toEqual([0, 1, 2]);
});

test('what is left of a budget is spent on what still fits', () => {
  const layers = [[curve(10, 100, 90)], [curve(3, 5, 4, 3)]];
  expect(withinBudget(layers, 19).map(({ rank }) => rank)).toEqual([1, 3]);
});

test('a budget is kept, and no uniform rank of any curve does better', () => {
  fc.assert(
    fc.property(problems, fc.integer({ min: 0, max: 60 }), (layers, budget) => {
      const plan = withinBudget(layers, budget);
      expect(sum(plan, 'parameters')).toBeLessThanOrEqual(budget);
      for (const index of [0, 1]) {
        for (let rank = 0; rank <= 3; rank++) {
          const uniform = layers.map((all) => {
            const { unit, captured } = all[index]!;
            const at = Math.min(rank, captured.length - 1);
            return { cost: at * unit, gain: captured[at]! };
          });
          if (uniform.reduce((total, { cost }) => total + cost, 0) > budget) continue;
          const captured = uniform.reduce((total, { gain }) => total + gain, 0);
          expect(sum(plan, 'captured')).toBeGreaterThanOrEqual(captured);
        }
      }
    }),
  );
});

test('a greedy plan is the best of all but for one step of one layer', () => {
  fc.assert(
    fc.property(problems, fc.integer({ min: 0, max: 60 }), (layers, budget) => {
      const fitting = [...allPlans(layers)].filter(([cost]) => cost <= budget);
      const best = Math.max(...fitting.map(([, gain]) => gain));
      const largest = Math.max(...layers.flat().map(({ captured }) => captured.at(-1)!));
      expect(sum(withinBudget(layers, budget), 'captured')).toBeGreaterThanOrEqual(best - largest);
    }),
  );
});

test('a target is reached with no layer larger than it has to be', () => {
  fc.assert(
    fc.property(problems, fc.integer({ min: 1, max: 200 }), (layers, target) => {
      const plan = withinError(layers, target);
      const most = layers.map((all) => Math.max(...all.map(({ captured }) => captured.at(-1)!)));
      const reachable = most.reduce((a, b) => a + b, 0) >= target;
      expect(plan !== undefined).toBe(reachable);
      if (!plan) return;
      expect(sum(plan, 'captured')).toBeGreaterThanOrEqual(target);
      for (const [layer, choice] of plan.entries()) {
        const others = sum(plan, 'captured') - choice.captured;
        for (const { unit, captured } of layers[layer]!) {
          const enough = captured.findIndex((own) => others + own >= target);
          if (enough >= 0) expect(enough * unit).toBeGreaterThanOrEqual(choice.parameters);
        }
      }
    }),
  );
});
