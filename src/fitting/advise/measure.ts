/** Evidence, one layer after the other, to scores: what is kept of a layer is small. */
import { setImmediate } from 'node:timers/promises';
import { capturedByRank, decompose } from '../../adapters/factors/fit-structure.js';
import type { Layer } from '../../adapters/model/layers.js';
import { parameterCount } from '../../adapters/structure/structure.js';
import { OnnxLoraError } from '../../errors.js';
import { sumOfSquares } from '../../linalg/products.js';
import type { WorkOptions } from '../../onnx/write.js';
import type { Curve } from '../allocation.js';
import { type Grid, rankOf, structureAt } from '../fit/candidates.js';
import type { ScoredLayer } from './choice.js';
import type { LayerEvidence } from './evidence.js';
import { candidatesFor, type Evidence, scoreOf } from './scores.js';

/** Measurements of a layer that are kept when its matrix is released. */
export interface MeasuredLayer extends ScoredLayer {
  readonly layer: Layer;
  /** The rank that it was measured at. */
  readonly rank: number;
  /** The cosine between both halves of the data. */
  readonly agreement: number | undefined;
  /** The share that each score's structure captures, by rank; where ranks are to be chosen. */
  readonly curves: readonly Curve[];
}

export interface RefusedLayer {
  readonly layer: Layer;
  readonly refusal: string;
}

export interface MeasureOptions extends WorkOptions {
  readonly rankOf: (layer: Layer) => number;
  /** The highest rank of curves; none are made without it. */
  readonly curvesTo?: number | undefined;
  readonly seed?: number | undefined;
}

/** Measures every candidate on every layer. */
export async function measureLayers(
  found: AsyncIterable<LayerEvidence>,
  options: MeasureOptions,
): Promise<{ measured: MeasuredLayer[]; refused: RefusedLayer[] }> {
  const measured: MeasuredLayer[] = [];
  const refused: RefusedLayer[] = [];
  for await (const one of found) {
    if ('refusal' in one) refused.push(one);
    else measured.push(await measureLayer(one.layer, one.evidence, options));
  }
  return { measured, refused };
}

async function measureLayer(
  layer: Layer,
  evidence: Evidence,
  options: MeasureOptions,
): Promise<MeasuredLayer> {
  const { signal, curvesTo, seed } = options;
  const size = layer.linear[0]!.weight;
  const rank = options.rankOf(layer);
  const scores = [];
  const curves = [];
  for (const grid of candidatesFor(size, rank)) {
    await setImmediate();
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
    scores.push(await scoreOf(evidence, size, grid, rank, { seed }));
    if (curvesTo !== undefined) curves.push(await curveOf(evidence, layer, grid, curvesTo, seed));
  }
  const { values, halves } = evidence;
  const agreement = halves && cosine(...halves);
  return { layer, rank, energy: sumOfSquares(values), scores, agreement, curves };
}

async function curveOf(
  { values }: Evidence,
  layer: Layer,
  grid: Grid,
  highest: number,
  seed: number | undefined,
): Promise<Curve> {
  const { weight } = layer.linear[0]!;
  const most = Math.floor(Math.min(highest, weight.in, weight.out) / rankOf(grid, 1));
  const structure = structureAt(grid, weight, 1);
  const decomposition = await decompose(values, structure, Math.max(1, most), { seed });
  return {
    unit: parameterCount(structure),
    captured: capturedByRank(decomposition, Math.max(1, most)),
  };
}

type Halves = NonNullable<Evidence['halves']>;

function cosine(a: Halves[0], b: Halves[1]): number {
  let product = 0;
  for (let i = 0; i < a.length; i++) product += a[i]! * b[i]!;
  const norms = Math.sqrt(sumOfSquares(a) * sumOfSquares(b));
  return norms === 0 ? 0 : product / norms;
}
