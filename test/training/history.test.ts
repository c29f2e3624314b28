import { describe, expect, it } from 'vitest';
import { RunHistory } from '../../src/training/history.js';
import type { StepRecord } from '../../src/training/records.js';

const record = (step: number): StepRecord => ({
  ...{ step, epoch: 0, loss: 1 / step, gradNorm: 1, lr: 0.1, ms: 1, samplesPerSecond: 1 },
});

function historyOf(steps: number): RunHistory {
  const history = new RunHistory();
  for (let step = 1; step <= steps; step++) history.add(record(step));
  return history;
}

describe('the course of a run', () => {
  it('has every step of a short one', () => {
    const history = historyOf(3);
    history.add({ step: 2, eval: { loss: 1 } });
    expect(history.records().map((one) => ['eval' in one, one.step])).toEqual([
      [false, 1],
      [false, 2],
      [true, 2],
      [false, 3],
    ]);
  });

  // It grew by half a kilobyte a step.
  it('is bounded however long the run is, even, with its first and its last step', () => {
    const steps = historyOf(200_003)
      .records()
      .map(({ step }) => step);
    expect(steps.length).toBeLessThanOrEqual(2 ** 14);
    expect(steps.length).toBeGreaterThan(2 ** 12);
    expect([steps[0], steps.at(-1)]).toEqual([1, 200_003]);
    const gaps = new Set(steps.slice(1, -1).map((step, i) => step - steps[i]!));
    expect([...gaps]).toEqual([16]);
  });
});
