/**
 * Sums of several ΔW that interfere less with each other: most numbers of each are left out before.
 * Weights are those of PEFT's `add_weighted_adapter` (`ties_svd`, `dare_linear_svd`).
 */
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';

/** A ΔW as a dense matrix, row-major, and its weight in the sum. */
export interface Weighted {
  readonly delta: Float64Array;
  readonly weight: number;
}

/** Σ wᵢ · ΔWᵢ */
export function weightedSum(parts: readonly Weighted[]): Float64Array {
  const sum = new Float64Array(parts[0]!.delta.length);
  for (const { delta, weight } of parts) {
    for (let i = 0; i < sum.length; i++) sum[i]! += weight * delta[i]!;
  }
  return sum;
}

/**
 * TIES (https://arxiv.org/abs/2306.01708): of each ΔW only the `density` share with the largest values
 * is kept; the sign of each number is that of their sum; the result is the mean of `w · value` over
 * those that have this sign.
 */
export function ties(parts: readonly Weighted[], density: number): Float64Array {
  const trimmed = parts.map(({ delta, weight }) => ({ delta: largest(delta, density), weight }));
  const size = parts[0]!.delta.length;
  const result = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    const total = trimmed.reduce((sum, { delta }) => sum + delta[i]!, 0);
    const sign = total >= 0 ? 1 : -1;
    const agreeing = trimmed.filter(({ delta }) => Math.sign(delta[i]!) === sign);
    const sum = agreeing.reduce((all, { delta, weight }) => all + weight * delta[i]!, 0);
    result[i] = sum / Math.max(1, agreeing.length);
  }
  return result;
}

/** The numbers of largest size, a share of all, zeros elsewhere; of equal ones the first are kept. */
function largest(values: Float64Array, density: number): Float64Array {
  const count = Math.floor(density * values.length);
  const sizes = values.map(Math.abs).sort();
  const threshold = sizes[values.length - count] ?? Number.POSITIVE_INFINITY;
  const kept = values.map((value) => (Math.abs(value) > threshold ? value : 0));
  let room = count - values.reduce((sum, value) => sum + Number(Math.abs(value) > threshold), 0);
  for (let i = 0; room > 0 && i < values.length; i++) {
    if (Math.abs(values[i]!) !== threshold) continue;
    kept[i] = values[i]!;
    room--;
  }
  return kept;
}

/**
 * DARE (https://arxiv.org/abs/2311.03099): each number stays with the probability `density`, divided by
 * it so that the sum's expectation stays.
 */
export function dropped(
  values: Float64Array,
  density: number,
  random: RandomGenerator,
): Float64Array {
  return values.map((value) => (uniformFloat64(random) < density ? value / density : 0));
}
