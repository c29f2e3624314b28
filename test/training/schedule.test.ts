import { describe, expect, it } from 'vitest';
import { learningRate, type ScheduleName } from '../../src/training/schedule.js';

const rates = (kind: ScheduleName, lr: number, warmup: number, steps: number) =>
  Array.from({ length: steps }, (_, i) => learningRate({ kind, lr, warmup, steps }, i));

describe('a schedule', () => {
  it.each<[ScheduleName, number[]]>([
    ['constant', [0, 0.5, 1, 1, 1, 1]],
    ['linear', [0, 0.5, 1, 0.75, 0.5, 0.25]],
    ['cosine', [0, 0.5, 1, (1 + Math.SQRT1_2) / 2, 0.5, (1 - Math.SQRT1_2) / 2]],
  ])('%s rises from zero in the warm-up, then goes its way', (kind, expected) => {
    for (const [i, rate] of rates(kind, 1, 2, 6).entries())
      expect(rate).toBeCloseTo(expected[i]!, 14);
  });

  it.each<ScheduleName>(['constant', 'linear', 'cosine'])(
    '%s starts at its rate without warm-up',
    (kind) => {
      expect(rates(kind, 0.3, 0, 20)[0]).toBe(0.3);
    },
  );

  it.each<ScheduleName>(['constant', 'linear', 'cosine'])(
    '%s does not get there where the warm-up is longer than the run',
    (kind) => {
      expect(rates(kind, 1, 10, 5)).toEqual([0, 0.1, 0.2, 0.3, 0.4]);
    },
  );

  it('never falls below zero behind its end', () => {
    for (const kind of ['linear', 'cosine'] as const) {
      expect(learningRate({ kind, lr: 1, warmup: 0, steps: 10 }, 25)).toBeGreaterThanOrEqual(0);
    }
  });
});
