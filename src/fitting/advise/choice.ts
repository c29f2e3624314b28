/**
 * Chooses from measured scores: one structure for the whole model, and others only for the layers
 * where one is clearly better.
 */
import type { Grid } from '../fit/candidates.js';
import type { Score } from './scores.js';

/** A layer's scores, and how much it counts beside other layers. */
export interface ScoredLayer {
  /** |matrix|²: of a gradient, what a step along it gains. */
  readonly energy: number;
  readonly scores: readonly Score[];
}

/** Certainty of a choice: whether another structure may do as well. */
export type Verdict = 'clear' | 'close';

export interface Choice extends Grid {
  readonly verdict: Verdict;
  /** The best that has another structure: what the verdict is about. */
  readonly runnerUp: Grid | undefined;
}

export interface Advice {
  readonly overall: Choice;
  /** One for each layer. */
  readonly layers: readonly Choice[];
}

// Less than this between two shares is not a reason to prefer a structure: not in proportion, and not where
// both are next to nothing, as fits to one half of pure noise are in the other.
const CLEAR_RATIO = 1.05;
const CLEAR_DIFFERENCE = 0.01;

/**
 * Chooses for a model. Where nothing is clearly better than plain LoRA, that is the choice: it is the
 * simplest, and every tool knows it.
 */
export function adviseFor(layers: readonly ScoredLayer[]): Advice {
  const overall = choose(totals(layers), GLOBAL);
  return { overall, layers: layers.map(({ scores }) => choose(scores, overall)) };
}

const GLOBAL: Grid = { structure: 'global', blocks: 1 };

/** Inputs of a choice. */
type Shares = Pick<Score, 'structure' | 'blocks' | 'share' | 'heldOut'>;

/** The best, unless it is not clearly better than what else would be taken. */
function choose(scores: readonly Shares[], otherwise: Grid): Choice {
  const sorted = [...scores].sort((a, b) => b.share - a.share);
  const best = sorted[0]!;
  const known = scores.find((score) => isSame(score, otherwise)) ?? scores[0]!;
  const chosen = isClearlyBetter(best, known) ? best : known;
  const runnerUp = sorted.find((score) => score.structure !== chosen.structure);
  const verdict = !runnerUp || isClearlyBetter(chosen, runnerUp) ? 'clear' : 'close';
  const { structure, blocks } = chosen;
  return { structure, blocks, verdict, runnerUp: runnerUp && gridOf(runnerUp) };
}

/** By a margin, and in both halves of the data. */
function isClearlyBetter(a: Shares, b: Shares): boolean {
  if (a.share < CLEAR_RATIO * b.share || a.share < b.share + CLEAR_DIFFERENCE) return false;
  return [0, 1].every((half) => (a.heldOut?.[half] ?? 1) > (b.heldOut?.[half] ?? 0));
}

function isSame(a: Grid, b: Grid): boolean {
  return a.structure === b.structure && a.blocks === b.blocks;
}

function gridOf({ structure, blocks }: Grid): Grid {
  return { structure, blocks };
}

/**
 * Each candidate over all layers. A layer without it, whose sizes its grid does not divide, counts as
 * plain LoRA there, which is what `patch` makes of the smallest grid.
 */
function totals(layers: readonly ScoredLayer[]): Shares[] {
  const candidates = new Map<string, Grid>();
  for (const score of layers.flatMap(({ scores }) => scores)) {
    candidates.set(`${score.structure} ${score.blocks}`, score);
  }
  const energy = layers.reduce((sum, layer) => sum + layer.energy, 0);
  const weighted = (candidate: Grid, share: (score: Shares) => number) =>
    layers.reduce((sum, { scores, energy: own }) => {
      const score = scores.find((one) => isSame(one, candidate)) ?? scores[0]!;
      return sum + (energy === 0 ? 0 : (own / energy) * share(score));
    }, 0);
  const halved = layers.every(({ scores }) => scores.every(({ heldOut }) => heldOut));
  return [...candidates.values()].map((candidate) => ({
    ...gridOf(candidate),
    share: weighted(candidate, ({ share }) => share),
    ...(halved
      ? {
          heldOut: [
            weighted(candidate, ({ heldOut }) => heldOut![0]),
            weighted(candidate, ({ heldOut }) => heldOut![1]),
          ] as const,
        }
      : {}),
  }));
}
