/** Whether a cache computes what the whole text does, tried out on a few tokens. */
import { OnnxLoraError } from '../../errors.js';
import type { Decoder } from './decoder.js';

/** Shorter than the windows of caches that forget. */
const TOKENS = 8;

/** A first run, one of several tokens after it; then comes a single one, as for each new token. */
const PARTS = [4, 7];

/**
 * Numbers of a cache may be rounded, and integer products see other ranges in other batches; a cache
 * that is wrong is far off.
 */
const TOLERANCE = 0.1;

/**
 * Compares the logits after a few tokens, computed at once, with those from the cache.
 * @returns what is wrong with the cache; undefined where nothing is
 */
export async function cacheProblem(
  decoder: Decoder,
  ids: readonly number[],
): Promise<string | undefined> {
  const some = Array.from({ length: TOKENS }, (_, i) => ids[i % ids.length]!);
  decoder.forget();
  const whole = await decoder.after(some);
  decoder.forget();
  try {
    for (const end of PARTS) await decoder.after(some.slice(0, end));
    const difference = distance(whole, await decoder.after(some));
    if (difference <= TOLERANCE) return undefined;
    return `its logits are ${difference.toPrecision(2)} of their greatest number off`;
  } catch (error) {
    if (!(error instanceof OnnxLoraError)) throw error;
    return error.message;
  } finally {
    decoder.forget();
  }
}

function distance(expected: Float64Array, found: Float64Array): number {
  // Tokens that are closed have infinity in both.
  const off = expected.map((value, i) => (value === found[i] ? 0 : Math.abs(value - found[i]!)));
  const sizes = expected.map((value) => (Number.isFinite(value) ? Math.abs(value) : 0));
  return maxOf(off) / (maxOf(sizes) || 1);
}

/** NaN where there is one: no number is close to it. */
function maxOf(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, value), 0);
}
