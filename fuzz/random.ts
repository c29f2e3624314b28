/** Random choices that a seed gives back. */
import { createHash } from 'node:crypto';
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';

export class Random {
  private readonly generator: RandomGenerator;

  /** The same choices for the same words. */
  constructor(...words: readonly (string | number)[]) {
    const digest = createHash('sha256').update(words.join('\0')).digest();
    this.generator = xoroshiro128plus(digest.readInt32LE(0));
  }

  /** One of 0, 1, …, `count` - 1. */
  below(count: number): number {
    return uniformInt(this.generator, 0, Math.max(1, count) - 1);
  }

  chance(probability: number): boolean {
    return uniformFloat64(this.generator) < probability;
  }

  /** One of `choices`, which may not be empty. */
  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.below(256));
  }
}
