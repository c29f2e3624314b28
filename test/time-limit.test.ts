import { describe, expect, it } from 'vitest';
import { TimeLimit, withinTime } from '../src/time-limit.js';

describe('a time limit', () => {
  it('gives what the work gives, and throws what it throws', () => {
    expect(withinTime(1000, () => withinTime(1000, () => 7))).toBe(7);
    const error = new TypeError('x');
    expect(() =>
      withinTime(1000, () => {
        throw error;
      }),
    ).toThrow(error);
  });

  it.each([
    [
      'a loop',
      () => {
        for (;;);
      },
    ],
    ['a regular expression that backtracks', () => /^(a+)+$/.test(`${'a'.repeat(50)}b`)],
    [
      'work that catches all errors',
      () => {
        for (;;) {
          try {
            JSON.parse('{');
          } catch {}
        }
      },
    ],
  ])('stops %s', (_, work) => {
    const start = performance.now();
    expect(() => withinTime(50, work)).toThrow(TimeLimit);
    expect(performance.now() - start).toBeLessThan(5000);
  });

  it('of work within other work is its own', () => {
    const inner = () => {
      expect(() =>
        withinTime(20, () => {
          for (;;);
        }),
      ).toThrow(TimeLimit);
      return 'on';
    };
    expect(withinTime(5000, inner)).toBe('on');
  });
});
