/** How adapters can start, and the start at random: B is zero, so that the model starts unchanged. */
import { createHash } from 'node:crypto';
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import type { RandomInit } from '../choices.js';
import type { Structure } from '../structure.js';

/**
 * A generator for one tensor of one adapter. It depends on the seed and the names only, so an
 * adapter starts the same whatever other layers are patched.
 */
export function generatorFor(seed: number, adapter: string, tensor: string): RandomGenerator {
  const digest = createHash('sha256').update(`${seed}\0${adapter}\0${tensor}`).digest();
  return xoroshiro128plus(digest.readInt32LE(0));
}

/**
 * `count` starting values of A.
 * - `kaiming`: uniform in ±√(Kin/in), the fan-in of one block (PEFT's LoRA and GraLoRA)
 * - `gaussian`: normal with standard deviation 1/R (PEFT's `init_lora_weights="gaussian"`)
 */
export function initialA(
  init: RandomInit,
  structure: Structure,
  rank: number,
  count: number,
  random: RandomGenerator,
): Float64Array {
  const values = new Float64Array(count);
  if (init === 'kaiming') {
    const bound = Math.sqrt(structure.grid[0] / structure.in);
    for (let i = 0; i < count; i++) values[i] = (2 * uniformFloat64(random) - 1) * bound;
  } else if (init === 'gaussian') {
    for (let i = 0; i < count; i++) values[i] = normal(random) / rank;
  }
  return values;
}

/** Standard normal, by Box and Muller. */
export function normal(random: RandomGenerator): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniformFloat64(random)));
  return radius * Math.cos(2 * Math.PI * uniformFloat64(random));
}
