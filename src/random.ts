/** Random numbers that depend on a seed and on names only. */
import { createHash } from 'node:crypto';
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';

/**
 * A generator for one tensor of one adapter. It depends on the seed and the names only, so an
 * adapter starts the same whatever other layers are patched.
 */
export function generatorFor(seed: number, adapter: string, tensor: string): RandomGenerator {
  const digest = createHash('sha256').update(`${seed}\0${adapter}\0${tensor}`).digest();
  return xoroshiro128plus(digest.readInt32LE(0));
}

/** Standard normal, by Box and Muller. */
export function normal(random: RandomGenerator): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniformFloat64(random)));
  return radius * Math.cos(2 * Math.PI * uniformFloat64(random));
}
