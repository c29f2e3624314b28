/** Which token comes next. */
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { OnnxLoraError } from '../../errors.js';
import { generatorFor } from '../../random.js';
import type { ResolvedSampling } from './options.js';

type Options = Pick<
  ResolvedSampling,
  'temperature' | 'topK' | 'topP' | 'repetitionPenalty' | 'seed'
>;

/** Chooses tokens one after another. */
export type Sampler = (logits: Float64Array, before: readonly number[]) => number;

/**
 * The likeliest token, or one drawn by its probability. In the order of transformers: the repetition
 * penalty, the temperature, then the `topK` likeliest, of those the likeliest `topP`.
 * @param turn numbers the answers of one seed
 */
export function sampler(options: Options, turn = 0): Sampler {
  const random = generatorFor(options.seed, 'generate', String(turn));
  return (logits, before) => {
    if (options.temperature > 0) {
      return drawn(candidates(logits, before, options), uniformFloat64(random));
    }
    return likeliest(penalized(logits, before, options.repetitionPenalty));
  };
}

/** Tokens that were there before become less likely, whatever the sign of their logits. */
function penalized(logits: Float64Array, before: readonly number[], penalty: number): Float64Array {
  if (penalty === 1) return logits;
  const scores = logits.slice();
  for (const id of new Set(before)) {
    const score = logits[id];
    if (score !== undefined) scores[id] = score > 0 ? score / penalty : score * penalty;
  }
  return scores;
}

/** @throws OnnxLoraError `diverged` where no token has a number */
function likeliest(scores: Float64Array): number {
  let best = -1;
  for (let id = 0; id < scores.length; id++) {
    if (best < 0 ? !Number.isNaN(scores[id]) : scores[id]! > scores[best]!) best = id;
  }
  if (best >= 0) return best;
  throw new OnnxLoraError('diverged', 'the model gives NaN for every next token', {
    hint: 'Its weights are damaged, or overflow in half precision: `inspect(model)` shows their type.',
  });
}

/** A token that may be drawn. */
export interface Candidate {
  readonly id: number;
  /** Its probability, but for a common factor. */
  readonly weight: number;
}

/** The tokens to draw from, the likeliest first. */
export function candidates(
  logits: Float64Array,
  before: readonly number[],
  { temperature, topK, topP, repetitionPenalty }: Omit<Options, 'seed'>,
): readonly Candidate[] {
  const scores = penalized(logits, before, repetitionPenalty);
  const most = scores[likeliest(scores)]!;
  const ids = [...scores.keys()].filter((id) => scores[id]! > Number.NEGATIVE_INFINITY);
  ids.sort((a, b) => scores[b]! - scores[a]! || a - b);
  const kept = topK > 0 ? ids.slice(0, topK) : ids;
  const weighted = kept.map((id) => ({ id, weight: Math.exp((scores[id]! - most) / temperature) }));
  return nucleus(weighted, topP);
}

/** The fewest of the likeliest that have the probability together. */
function nucleus(sorted: readonly Candidate[], topP: number): readonly Candidate[] {
  if (topP === 1) return sorted;
  const wanted = topP * total(sorted);
  let sum = 0;
  const end = sorted.findIndex(({ weight }) => {
    sum += weight;
    return sum >= wanted;
  });
  return end < 0 ? sorted : sorted.slice(0, end + 1);
}

function drawn(from: readonly Candidate[], share: number): number {
  let left = share * total(from);
  const found = from.find(({ weight }) => {
    left -= weight;
    return left < 0;
  });
  return (found ?? from.at(-1)!).id;
}

function total(candidates: readonly Candidate[]): number {
  return candidates.reduce((sum, { weight }) => sum + weight, 0);
}
