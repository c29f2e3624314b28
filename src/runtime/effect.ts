/**
 * Compares a difference with the change that adapters make. A correct fold differs from the adapters beside
 * the weights by rounding: small against that change, and in no direction of its own. If a part of the
 * adapters is missing, the difference points back to the model without them.
 */
import { FAR } from './magnitude.js';
import { type TensorValue, tensorToFloat64 } from './tensor-value.js';

/** Norms over the elements of one output, as shares of the norm of the output itself. */
export interface Effect {
  readonly elements: number;
  /** The root mean square of the output, with adapters or without, whichever is larger. */
  readonly size: number;
  /** Of what the adapters move: reference - base. */
  readonly moved: number;
  /** Of candidate - reference. */
  readonly error: number;
  /** The share of the adapters that the candidate lacks: 0 where all is folded, 1 where nothing is. */
  readonly missing: number;
}

/** Collects the runs of one output. */
export class EffectSums {
  private elements = 0;
  private size = 0;
  private moved = 0;
  private error = 0;
  private back = 0;

  /** @param unit about the size of the elements, so that their squares stay numbers */
  constructor(private readonly unit: number) {}

  /** Takes one run of each. Elements that are not finite in one of them are left out. */
  add(base: TensorValue, reference: TensorValue, candidate: TensorValue): void {
    const [a, b] = [tensorToFloat64(base), tensorToFloat64(reference)];
    const c = tensorToFloat64(candidate);
    for (let i = 0; i < b.length; i++) {
      const size = b[i]! / this.unit;
      const moved = size - a[i]! / this.unit;
      const error = c[i]! / this.unit - size;
      if (!Number.isFinite(moved) || !Number.isFinite(error)) continue;
      // A number that stands for -∞ beside others of that unit says nothing of their size.
      if (moved === 0 && error === 0 && Math.abs(size) >= FAR) continue;
      this.elements++;
      this.size += Math.max(size * size, (size - moved) ** 2);
      this.moved += moved * moved;
      this.error += error * error;
      this.back -= error * moved;
    }
  }

  get effect(): Effect {
    const size = this.size || 1;
    return {
      elements: this.elements,
      size: Math.sqrt(this.size / Math.max(1, this.elements)) * this.unit,
      moved: Math.sqrt(this.moved / size),
      error: Math.sqrt(this.error / size),
      missing: this.moved > 0 ? this.back / this.moved : 0,
    };
  }
}

/** The judgement of a fold by the effect of its adapters. */
export type FoldVerdict = 'folded' | 'missing' | 'unmeasured';

/**
 * If half of all adapters were missing, `missing` would be 0.5. It is only known up to the rounding
 * of both runs, which averages out over the elements.
 */
const MISSING = 0.25;

/** The change that adapters have to make for a fold of them to be proven, in multiples of rounding. */
const SEEN = 8;

/**
 * A single layer that is missing among many moves less than all do, but more than rounding: of right
 * folds in the zoo the difference is at most three times what a nudge of the adapters moves. Few elements
 * may be near in one run and not in another, by chance.
 */
const PART_OF_EFFECT = 0.02;
const beyondRounding = (elements: number) => 4 * (1 + 8 / elements);

/**
 * Judges a fold by what its adapters move.
 * @param rounding what rounding alone moves, as a share of the output
 */
export function judgeFold(effect: Effect, rounding: number): FoldVerdict {
  const { elements, moved, error, missing } = effect;
  if (moved === 0) return 'unmeasured';
  const isPart = error > PART_OF_EFFECT * moved;
  if (isPart && error > beyondRounding(elements) * rounding) return 'missing';
  const doubt = (2 * rounding) / (moved * Math.sqrt(elements));
  if (moved >= 2 * rounding && missing - doubt > MISSING) return 'missing';
  return moved >= SEEN * rounding && 0.5 - doubt > MISSING ? 'folded' : 'unmeasured';
}
