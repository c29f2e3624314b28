/** The ways to initialize adapters, and the random one: B is zero, so that the model starts unchanged. */
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import { normal } from '../../random.js';
import type { RandomInit } from '../structure/choices.js';
import type { Structure } from '../structure/structure.js';

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
