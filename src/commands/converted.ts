/** Weights of a folded model that were stored with fewer bits, and what reading them back shows. */
import type { Verification } from '../runtime/verification.js';

/** A weight that was rounded. */
export interface QuantizedWeight {
  /** The first node that computes with it. */
  readonly node: string;
  /** Name of the tensor that it was. */
  readonly weight: string;
  /** |Q(W) - W|, the Frobenius norm. */
  readonly error: number;
  /** |W|. */
  readonly norm: number;
}

/** With its greatest error, over what is allowed. */
export type ReadWeight = QuantizedWeight & { readonly steps: number };

/** The findings of runs and of weights as one. */
export function judged(
  found: Verification,
  read: readonly ReadWeight[],
  became: string,
  unit: string,
): Verification {
  const wrong = read.find(({ steps }) => !(steps <= 1));
  const passed = found.passed && !wrong;
  return {
    ...found,
    passed,
    proven: passed && read.length > 0,
    weights: { count: read.length, worst: Math.max(0, ...read.map(({ steps }) => steps)) },
    ...(read.length === 0 ? { reason: `no weight of the model became ${became}` } : {}),
    ...(wrong
      ? { reason: `a number of ${wrong.weight} is ${wrong.steps.toPrecision(2)} ${unit} off` }
      : {}),
  };
}
