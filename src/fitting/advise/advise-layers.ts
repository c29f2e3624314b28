/** Chooses a structure for each layer from the evidence. */

import type { Layer } from '../../adapters/model/layers.js';
import { parameterCount, planStructure } from '../../adapters/structure/structure.js';
import type { Selection } from '../../adapters/targets/select.js';
import { OnnxLoraError } from '../../errors.js';
import { withinBudget } from '../allocation.js';
import { type Grid, rankOf } from '../fit/candidates.js';
import { adviseFor, type Choice } from './choice.js';
import type { LayerEvidence } from './evidence.js';
import {
  type MeasuredLayer,
  type MeasureOptions,
  measureLayers,
  type RefusedLayer,
} from './measure.js';
import { type LayerChoice, type PatchAdvice, patchOptions } from './patch-options.js';

export interface AdviceOptions extends Omit<MeasureOptions, 'curvesTo'> {
  /** The rank of layers that nothing says another of. */
  readonly rank: number;
  /** The parameters of all adapters together: then ranks are chosen too. */
  readonly budget?: number | undefined;
  readonly selection: Selection;
}

export interface LayersAdvice {
  readonly overall: Choice;
  readonly layers: readonly AdvisedLayer[];
  readonly refused: readonly RefusedLayer[];
  readonly patch: PatchAdvice;
}

export interface AdvisedLayer extends MeasuredLayer {
  readonly choice: Choice & { readonly rank: number; readonly parameters: number };
}

/**
 * Measures the layers and chooses.
 * @throws OnnxLoraError `no-target` where there is evidence on none of the layers, and those of the
 * evidence
 */
export async function adviseLayers(
  all: readonly Layer[],
  evidence: AsyncIterable<LayerEvidence>,
  options: AdviceOptions,
): Promise<LayersAdvice> {
  const { budget, rank, selection } = options;
  const curvesTo = budget === undefined ? undefined : HIGHEST_RANK;
  const { measured, refused } = await measureLayers(evidence, { ...options, curvesTo });
  if (measured.length === 0) throw nothingToGoBy(refused);
  const order = new Map(all.map((layer, i) => [layer, i]));
  measured.sort((a, b) => order.get(a.layer)! - order.get(b.layer)!);
  const { overall, layers: choices } = adviseFor(measured);
  const ranks =
    budget === undefined
      ? measured.map((layer) => layer.rank)
      : ranksWithin(measured, choices, budget);
  const layers = measured.map((one, i) => advised(one, choices[i]!, ranks[i]!));
  const chosen: LayerChoice[] = layers.map(({ layer, choice }) => ({ ...choice, layer }));
  return {
    overall,
    layers,
    refused,
    patch: patchOptions(all, chosen, { ...overall, rank: usual(ranks, rank) }, selection),
  };
}

// Beyond this an adapter is hardly a small one any more.
const HIGHEST_RANK = 128;

/** The rank of each layer, on the curve of the structure that it is to have. */
function ranksWithin(
  measured: readonly MeasuredLayer[],
  choices: readonly Choice[],
  budget: number,
): number[] {
  const curves = measured.map(({ scores, curves }, i) => {
    const at = scores.findIndex((score) => isSame(score, choices[i]!));
    return [curves[at]!];
  });
  const cheapest = Math.min(...curves.map(([curve]) => curve!.unit));
  if (budget < cheapest) {
    throw new OnnxLoraError(
      'invalid-argument',
      `budget is ${budget} parameters, and the smallest adapter has ${cheapest}`,
    );
  }
  return withinBudget(curves, budget).map((choice, i) => rankOf(choices[i]!, choice.rank));
}

function isSame(a: Grid, b: Grid): boolean {
  return a.structure === b.structure && a.blocks === b.blocks;
}

function advised(measured: MeasuredLayer, choice: Choice, rank: number): AdvisedLayer {
  const { weight } = measured.layer.linear[0]!;
  const parameters =
    rank === 0 ? 0 : parameterCount(planStructure(weight.in, weight.out, { ...choice, rank }));
  return { ...measured, choice: { ...choice, rank, parameters } };
}

/** The rank that most layers have, the given one where it is among these. */
function usual(ranks: readonly number[], otherwise: number): number {
  const counts = new Map<number, number>();
  for (const rank of ranks) if (rank > 0) counts.set(rank, (counts.get(rank) ?? 0) + 1);
  const [most] = [...counts].sort(
    ([a, m], [b, n]) => n - m || Number(b === otherwise) - Number(a === otherwise),
  );
  return most?.[0] ?? otherwise;
}

function nothingToGoBy(refused: readonly RefusedLayer[]): OnnxLoraError {
  const [first] = refused;
  const more = refused.length > 1 ? ` and ${refused.length - 1} more` : '';
  const why = first ? ` (${first.layer.module}${more}: ${first.refusal})` : '';
  return new OnnxLoraError('no-target', `there is nothing to advise from for any layer${why}`, {
    node: first?.layer.module,
  });
}
