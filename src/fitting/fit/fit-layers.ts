/** Adapters for layers that changed: which structure and rank each one gets, and its numbers. */
import { setImmediate } from 'node:timers/promises';
import {
  type BlockDecomposition,
  decompose,
  fitOf,
  type StructureFit,
} from '../../adapters/factors/fit-structure.js';
import type { OpenedModel } from '../../adapters/model/opened.js';
import type { Structure } from '../../adapters/structure/structure.js';
import { OnnxLoraError } from '../../errors.js';
import { sumOfSquares } from '../../linalg/products.js';
import type { FloatName } from '../../onnx/dtype.js';
import type { WorkOptions } from '../../onnx/write.js';
import { type Choice, choiceWithin, withinBudget, withinError } from '../allocation.js';
import {
  bestWithin,
  fullRank,
  type Grid,
  type Measured,
  measure,
  rankOf,
  type Size,
  structureAt,
  untilRounding,
} from './candidates.js';
import type { ChangedLayer } from './changed.js';
import { weightDelta } from './weight-delta.js';

/** Goals that decide on the sizes of the adapters. */
export type Goal =
  /** Every layer has the parameters of a LoRA of this rank. */
  | { readonly kind: 'rank'; readonly rank: number }
  /** All layers together have no more parameters. */
  | { readonly kind: 'budget'; readonly parameters: number }
  /** √(Σ|ΔW − fit|² / Σ|ΔW|²) over all layers is not larger. */
  | { readonly kind: 'error'; readonly error: number };

/** An adapter's shape and numbers. */
export interface LayerFit extends StructureFit {
  readonly grid: Grid;
  readonly structure: Structure;
}

/** The error that a structure leaves with the parameters of the choice. */
export interface Comparison extends Grid {
  /** |ΔW − fit| / |ΔW|. */
  readonly error: number;
}

/** A layer and its adapter. */
export interface FittedLayer {
  readonly changed: ChangedLayer;
  /** |ΔW| and |W|. */
  readonly deltaNorm: number;
  readonly weightNorm: number;
  /** undefined where the goal leaves the layer no parameters. */
  readonly fit: LayerFit | undefined;
  readonly parameters: number;
  /** |ΔW − fit| / |ΔW|. */
  readonly error: number;
  readonly comparisons: readonly Comparison[];
}

export interface LayerFitOptions extends WorkOptions {
  readonly grids: readonly Grid[];
  readonly goal: Goal;
  readonly seed: number;
}

/**
 * Fits every layer; weights are in memory one at a time. With a goal for all layers together, each is
 * read again: what a rank captures has to be known everywhere before one is given to any.
 * @throws OnnxLoraError `invalid-model` for numbers that are not finite, `aborted`
 */
export function fitLayers(
  base: OpenedModel,
  tuned: OpenedModel,
  layers: readonly ChangedLayer[],
  options: LayerFitOptions,
): Promise<FittedLayer[]> {
  const fitter = new LayerFitter(base, tuned, layers, options);
  const { goal } = options;
  return goal.kind === 'rank' ? fitter.each(goal.rank) : fitter.together(goal);
}

/** Knowledge of a layer before its adapter is chosen. */
interface Measurement extends Pick<Measured, 'curves'> {
  readonly squares: number;
  readonly weightNorm: number;
  /** The R up to which the curves go. */
  readonly rank: number;
  /** Of |ΔW|²: what the rounding of both weights to their type makes of it, about. */
  readonly rounding: number;
}

// Most of what fine-tuning changes is within this rank.
const FIRST_RANK = 32;

// To this share sums of squares are the same whatever their order.
const ROUNDING = 1e-12;

class LayerFitter {
  constructor(
    private readonly base: OpenedModel,
    private readonly tuned: OpenedModel,
    private readonly layers: readonly ChangedLayer[],
    private readonly options: LayerFitOptions,
  ) {}

  /** Each layer by itself. */
  async each(rank: number): Promise<FittedLayer[]> {
    const fitted: FittedLayer[] = [];
    for (const [i, changed] of this.layers.entries()) {
      await this.step('fit', i, this.layers.length, changed);
      const { decompositions, ...measurement } = await this.measured(changed, rank);
      const size = sizeOf(changed);
      const choice = bestWithin(
        measurement.curves,
        rank * (size.in + size.out),
        measurement.rounding,
      );
      const blocks = decompositions[choice.curve]!;
      fitted.push(this.fitted(changed, measurement, choice, blocks));
    }
    return fitted;
  }

  /** The best choice for all layers together. */
  async together(goal: Exclude<Goal, { kind: 'rank' }>): Promise<FittedLayer[]> {
    let measurements = await this.measureAll(
      this.layers.map((layer) => this.firstRank(layer, goal)),
    );
    let choices = choose(measurements, goal);
    for (;;) {
      const ranks = this.ranksToLookAt(measurements, choices);
      if (ranks.every((rank, i) => rank === measurements[i]!.rank)) break;
      measurements = await this.measureAll(ranks, measurements);
      choices = choose(measurements, goal);
    }
    if (!choices) throw outOfReach(measurements, this.options.grids);
    const fitted: FittedLayer[] = [];
    for (const [i, changed] of this.layers.entries()) {
      await this.step('fit', i, this.layers.length, changed);
      const choice = choices[i]!;
      const blocks = choice.rank > 0 ? await this.decomposed(changed, choice) : undefined;
      fitted.push(this.fitted(changed, measurements[i]!, choice, blocks));
    }
    return fitted;
  }

  /** Twice the rank that the budget would give every layer, for some are to get more than others. */
  private firstRank(changed: ChangedLayer, goal: Goal): number {
    if (goal.kind !== 'budget') return Math.min(FIRST_RANK, fullRank(sizeOf(changed)));
    const unit = this.layers.map(sizeOf).reduce((sum, size) => sum + size.in + size.out, 0);
    const rank = Math.max(MIN_RANK, 2 * Math.floor(goal.parameters / unit));
    return Math.min(rank, fullRank(sizeOf(changed)));
  }

  /** Twice as high where a choice is the last that was measured. */
  private ranksToLookAt(
    measurements: readonly Measurement[],
    choices: readonly Choice[] | undefined,
  ): number[] {
    return measurements.map(({ rank, curves }, i) => {
      const choice = choices?.[i];
      const isLast = !choice || choice.rank === curves[choice.curve]!.captured.length - 1;
      return isLast && choice?.rank !== 0
        ? Math.min(2 * rank, fullRank(sizeOf(this.layers[i]!)))
        : rank;
    });
  }

  private async measureAll(
    ranks: readonly number[],
    known: readonly Measurement[] = [],
  ): Promise<Measurement[]> {
    const measurements: Measurement[] = [];
    for (const [i, changed] of this.layers.entries()) {
      const before = known[i];
      if (before && before.rank === ranks[i]) {
        measurements.push(before);
        continue;
      }
      await this.step('measure', i, this.layers.length, changed);
      // Vectors of all layers would take more memory than the largest layer.
      const { decompositions: _, ...measurement } = await this.measured(changed, ranks[i]!);
      measurements.push(measurement);
    }
    return measurements;
  }

  private async measured(changed: ChangedLayer, rank: number): Promise<Measurement & Measured> {
    const { grids, seed, signal } = this.options;
    const { values, weightNorm } = await weightDelta(this.base, this.tuned, changed);
    const measured = await measure(values, sizeOf(changed), { grids, rank, seed, signal });
    const squares = sumOfSquares(values);
    // Of either weight, the tuned one being no longer than this.
    const norms = weightNorm ** 2 + (weightNorm + Math.sqrt(squares)) ** 2;
    const rounding = (norms * roundoff(changed) ** 2) / 4 + ROUNDING * squares;
    return { ...measured, squares, weightNorm, rank, rounding };
  }

  private async decomposed(changed: ChangedLayer, { curve, rank }: Choice) {
    const { values } = await weightDelta(this.base, this.tuned, changed);
    const structure = structureAt(this.options.grids[curve]!, sizeOf(changed), rank);
    return decompose(values, structure, rank, { seed: this.options.seed });
  }

  private fitted(
    changed: ChangedLayer,
    { curves, squares, weightNorm }: Measurement,
    { curve, rank, parameters, captured }: Choice,
    blocks: BlockDecomposition | undefined,
  ): FittedLayer {
    const { grids } = this.options;
    const grid = grids[curve]!;
    const facts = { changed, deltaNorm: Math.sqrt(squares), weightNorm };
    const comparisons = curves.flatMap((one, i) => {
      const { captured: other } = choiceWithin(one, i, parameters);
      // A grid that is that of another one was not measured.
      return one.captured.length > 1 ? { ...grids[i]!, error: errorOf(squares, other) } : [];
    });
    if (!blocks || captured === 0) {
      return { ...facts, fit: undefined, parameters: 0, error: errorOf(squares, 0), comparisons };
    }
    const structure = structureAt(grid, sizeOf(changed), rank);
    const fit = { ...fitOf(blocks, structure), grid, structure };
    return { ...facts, fit, parameters, error: errorOf(squares, captured), comparisons };
  }

  /** Signals get their turn, for a run of ONNX Runtime blocks the thread. */
  private async step(
    phase: string,
    done: number,
    total: number,
    { layer }: ChangedLayer,
  ): Promise<void> {
    const { signal, onProgress } = this.options;
    onProgress?.({ phase, done, total, unit: 'weights', detail: layer.module });
    await setImmediate();
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
  }
}

// The least to measure: a layer may get this rank although the budget gives the average layer none.
const MIN_RANK = 8;

function choose(
  measurements: readonly Measurement[],
  goal: Exclude<Goal, { kind: 'rank' }>,
): Choice[] | undefined {
  if (goal.kind === 'budget') {
    const useful = measurements.map(({ curves, squares, rounding }) =>
      curves.map((curve) => untilRounding(curve, squares, rounding)),
    );
    return withinBudget(useful, goal.parameters);
  }
  const squares = measurements.reduce((sum, measurement) => sum + measurement.squares, 0);
  const target = (1 - goal.error ** 2 - ROUNDING) * squares;
  return withinError(
    measurements.map(({ curves }) => curves),
    target,
  );
}

/** Blocks that a structure does not have are out of its reach at any rank. */
function outOfReach(measurements: readonly Measurement[], grids: readonly Grid[]): OnnxLoraError {
  const squares = measurements.reduce((sum, measurement) => sum + measurement.squares, 0);
  const captured = measurements.reduce(
    (sum, { curves }) => sum + Math.max(...curves.map((curve) => curve.captured.at(-1)!)),
    0,
  );
  const names = [...new Set(grids.map(({ structure }) => structure))];
  return new OnnxLoraError(
    'invalid-argument',
    `${names.join(' and ')} adapters leave an error of ${errorOf(squares, captured).toPrecision(3)} at any rank`,
    { hint: 'Allow a larger error, or other structures.' },
  );
}

/** Half the distance of neighbouring numbers, as a share of them. */
function roundoff({ layer }: ChangedLayer): number {
  const bits = { float64: 53, float32: 24, float16: 11, bfloat16: 8 };
  return 2 ** -bits[layer.linear[0]!.weight.storedDtype as FloatName];
}

function errorOf(squares: number, captured: number): number {
  return squares === 0 ? 0 : Math.sqrt(Math.max(0, 1 - captured / squares));
}

/** Of the layer's weight. */
export function sizeOf({ layer }: ChangedLayer): Size {
  return layer.linear[0]!.weight;
}

/** R of a fit, the rank of the LoRA that has as many parameters. */
export function rankOfFit({ grid, structure }: LayerFit): number {
  return rankOf(grid, structure.blockRank);
}
