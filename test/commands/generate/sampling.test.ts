/** Which tokens may be drawn, against the logits processors of transformers 5.24. */
import { describe, expect, it } from 'vitest';
import { candidates, sampler } from '../../../src/commands/generate/sampling.js';
import { OnnxLoraError } from '../../../src/errors.js';

const logits = Float64Array.of(0.5, -1.25, 2, 0.75, -0.5, 1.5, 1, -2);
const before = [2, 4, 2];
const plain = { temperature: 1, topK: 0, topP: 1, repetitionPenalty: 1, seed: 0 };

/** Recorded: tokens with their probabilities, the likeliest first. */
const recorded: [Partial<typeof plain>, [number, number][]][] = [
  [
    {},
    [
      ...([
        [2, 0.381211],
        [5, 0.231216],
        [6, 0.14024],
        [3, 0.109219],
      ] as [number, number][]),
      ...([
        [0, 0.08506],
        [4, 0.031292],
        [1, 0.014781],
        [7, 0.006982],
      ] as [number, number][]),
    ],
  ],
  [
    { topK: 3 },
    [
      [2, 0.50648],
      [5, 0.307196],
      [6, 0.186324],
    ],
  ],
  [
    { topP: 0.8 },
    [
      [2, 0.442299],
      [5, 0.268268],
      [6, 0.162713],
      [3, 0.126721],
    ],
  ],
  [
    { temperature: 0.7, topK: 5, topP: 0.9, repetitionPenalty: 1.3 },
    [
      [2, 0.365749],
      [5, 0.346195],
      [6, 0.169477],
      [3, 0.118578],
    ],
  ],
  [
    { temperature: 2, topK: 4, topP: 0.5, repetitionPenalty: 1.5 },
    [
      [5, 0.520821],
      [2, 0.479179],
    ],
  ],
];

describe('the next token', () => {
  it.each(recorded)(
    'with %j is drawn from the same tokens by the same probabilities',
    (given, expected) => {
      const found = candidates(logits, before, { ...plain, ...given });
      const sum = found.reduce((total, { weight }) => total + weight, 0);
      expect(found.map(({ id }) => id)).toEqual(expected.map(([id]) => id));
      expected.forEach(([, probability], i) => {
        expect(found[i]!.weight / sum).toBeCloseTo(probability, 5);
      });
    },
  );

  it('is drawn as often as its probability says', () => {
    const choose = sampler({ ...plain, topK: 3 });
    const counts = new Map<number, number>();
    for (let i = 0; i < 4000; i++) {
      const id = choose(logits, before);
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual([2, 5, 6]);
    expect(counts.get(2)! / 4000).toBeCloseTo(0.506, 1);
  });

  it('depends on the seed, and on the number of the answer', () => {
    const draw = (seed: number, turn: number) => {
      const choose = sampler({ ...plain, seed }, turn);
      return Array.from({ length: 20 }, () => choose(logits, before)).join();
    };
    expect(new Set([draw(0, 0), draw(0, 0), draw(1, 0), draw(0, 1)]).size).toBe(3);
  });

  it('without a temperature is the likeliest, the first of equal ones, never one without a number', () => {
    const greedy = sampler({ ...plain, temperature: 0 });
    expect(greedy(logits, before)).toBe(2);
    expect(greedy(Float64Array.of(1, 3, 3), [])).toBe(1);
    expect(greedy(Float64Array.of(Number.NaN, -5, Number.NaN), [])).toBe(1);
    expect(() => greedy(Float64Array.of(Number.NaN), [])).toThrow(OnnxLoraError);
    expect(sampler({ ...plain, temperature: 0, repetitionPenalty: 2 })(logits, before)).toBe(5);
  });
});
