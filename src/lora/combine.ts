/** One adapter set of several. */
import { fitStructure } from '../analysis/fit-structure.js';
import type { Factors } from '../analysis/norms.js';
import { OnnxLoraError } from '../errors.js';
import { type AdapterContents, contentsOfFile, type OutgoingAdapter } from './adapter-contents.js';
import type { AdapterFile } from './adapter-file.js';
import {
  type AdapterOutput,
  type AdapterOutputOptions,
  filesOf,
  writeAdapters,
} from './adapter-output.js';
import { type CombinedLayer, checkSummable, combinedLayers, type Part } from './combinable.js';
import { areAlike, concatenated } from './concatenate.js';
import { generatorFor } from './init.js';
import { structureOf } from './insert.js';
import { openAdapter } from './open-adapter.js';
import { denseDelta, plainFactors } from './plain.js';
import { storedPieces } from './stored-pieces.js';
import { isPlain, planStructure, type Structure, type StructureName } from './structure.js';
import { dropped, ties, weightedSum } from './task-arithmetic.js';
import { truncated } from './truncate.js';

/**
 * - `linear`: Σ wᵢ·ΔWᵢ exactly, by factors side by side, so that ranks add up. PEFT calls this `cat`; its
 *   own `linear` adds factors, and the product of such sums is another ΔW.
 * - `svd`: the same sum, fitted to a structure of a given rank.
 * - `ties`, `dare`: a sum of thinned-out ΔW (task-arithmetic.ts), fitted likewise; PEFT's `ties_svd` and
 *   `dare_linear_svd`.
 */
export const combineMethods = ['linear', 'svd', 'ties', 'dare'] as const;
export type CombineMethod = (typeof combineMethods)[number];

export interface CombineOptions extends AdapterOutputOptions {
  /** One for each adapter set. Default: 1 each. */
  readonly weights?: readonly number[] | undefined;
  /** Default `linear`. */
  readonly method?: CombineMethod | undefined;
  /** R of the result, for all methods but `linear`. Default: the highest of the sets. */
  readonly rank?: number | undefined;
  /** Likewise. Default: that of a layer's adapters where they are alike, else `global`. */
  readonly structure?: StructureName | undefined;
  /** K for that structure. Default 4. */
  readonly blocks?: number | undefined;
  /** The share of numbers that `ties` and `dare` keep, above 0 and at most 1. */
  readonly density?: number | undefined;
  /** What `dare` draws from. Default 0. */
  readonly seed?: number | undefined;
  /** The set's name. Default `combined`; of one adapter set alone, its own. */
  readonly name?: string | undefined;
}

/** How a layer's adapters were combined. */
export interface CombinedAdapter {
  readonly name: string;
  /** Which of the sets adapt the layer, counted from 0. */
  readonly inputs: readonly number[];
  readonly structure: StructureName;
  readonly grid: readonly [number, number];
  readonly rank: number;
  /** |ΔW wanted - ΔW written| / |ΔW wanted|, before rounding to float32. */
  readonly error: number;
}

export interface CombineResult extends AdapterOutput {
  readonly set: string;
  readonly method: CombineMethod;
  readonly weights: readonly number[];
  readonly adapters: readonly CombinedAdapter[];
}

/**
 * Combines adapter sets of one model, of any format, to one.
 * @throws OnnxLoraError `invalid-argument`, `adapter-mismatch`, `unsupported`, and those of reading and
 * writing
 */
export async function combine(
  paths: readonly string[],
  options: CombineOptions,
): Promise<CombineResult> {
  const method = options.method ?? 'linear';
  const weights = options.weights ?? paths.map(() => 1);
  checkOptions(paths, weights, method, options);
  const files: AdapterFile[] = [];
  try {
    for (const path of paths) files.push(openAdapter(path));
    const sets = files.map(contentsOfFile);
    const isCopy = method === 'linear' && weights.every((weight) => weight === 1) && !sets[1];
    if (!isCopy) sets.forEach(checkSummable);
    const layers = combinedLayers(sets, weights);
    const made: Made[] = [];
    for (const layer of layers) made.push(await combineLayer(layer, method, options));
    const contents: AdapterContents = {
      ...{ label: paths.join(' + '), set: options.name ?? (isCopy ? sets[0]!.set : 'combined') },
      adapters: made.map(({ adapter }, i) => named(adapter, layers[i]!.name)),
      trained: isCopy ? sets[0]!.trained : [],
      hasHead: isCopy && sets[0]!.hasHead,
    };
    const inputs = paths.flatMap(filesOf);
    const written = await writeAdapters(contents, () => storedPieces(contents), inputs, options);
    const adapters = layers.map((layer, i) => describe(layer, made[i]!));
    return { ...written, set: contents.set, method, weights, adapters };
  } finally {
    for (const file of files) file.close();
  }
}

function checkOptions(
  paths: readonly string[],
  weights: readonly number[],
  method: CombineMethod,
  { rank, structure, blocks, density }: CombineOptions,
): void {
  if (paths.length === 0) throw invalid('there is no adapter set to combine');
  if (weights.length !== paths.length) {
    throw invalid(`${weights.length} weights for ${paths.length} adapter sets, expected one each`);
  }
  const bad = weights.find((weight) => !Number.isFinite(weight));
  if (bad !== undefined) throw invalid(`a weight is ${bad}, expected finite numbers`);
  const idle = Object.entries({ rank, structure, blocks }).find(([, value]) => value !== undefined);
  if (method === 'linear' && idle) {
    const hint = 'Take --method svd to fit the sum to a rank or structure.';
    throw invalid(`${idle[0]} has no effect on linear, which is exact`, hint);
  }
  if (method !== 'ties' && method !== 'dare') {
    if (density !== undefined) throw invalid(`density has no effect on ${method}`);
  } else if (density === undefined || !(density > 0 && density <= 1)) {
    const found = density === undefined ? 'missing' : `${density}`;
    const hint = 'For example --density 0.2 for ties, 0.5 for dare';
    throw invalid(`density is ${found}, expected the share that ${method} keeps, 0 to 1`, hint);
  }
}

function invalid(problem: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', problem, { hint });
}

interface Made {
  readonly adapter: OutgoingAdapter;
  readonly error: number;
}

/** A set may begin its paths in another way than those before it. */
function named(adapter: OutgoingAdapter, name: string): OutgoingAdapter {
  return { ...adapter, record: { ...adapter.record, name } };
}

function describe({ name, parts }: CombinedLayer, { adapter, error }: Made): CombinedAdapter {
  const { structure, grid, rank } = adapter.record;
  return { name, inputs: parts.map(({ input }) => input), structure, grid, rank, error };
}

async function combineLayer(
  layer: CombinedLayer,
  method: CombineMethod,
  options: CombineOptions,
): Promise<Made> {
  const { parts } = layer;
  if (method === 'linear') return { adapter: exactSum(parts), error: 0 };
  const { structure, rank } = structureFor(layer, options);
  const sum = concatenated(parts);
  if (method === 'svd' && isPlain(structure)) {
    const { in: rows, out } = structure;
    const all = plainFactors(sum.structure, sum.factors());
    const { factors, error } = await truncated(all, rows, out, Math.min(rank, all.rank));
    const { rank: found, a, b } = factors;
    return {
      adapter: made(parts, { ...structure, blockRank: found }, found, () => ({ a, b })),
      error,
    };
  }
  const fit = await fitStructure(deltaOf(layer, method, options), structure, options);
  return { adapter: made(parts, structure, rank, () => fit), error: fit.error };
}

/** The sum of adapters of a layer. One that is alone keeps its numbers, and is scaled. */
export function exactSum(parts: readonly Part[]): OutgoingAdapter {
  const [{ adapter, weight }] = parts as [Part];
  if (parts.length > 1) {
    const { structure, rank, factors } = concatenated(parts);
    return made(parts, structure, rank, factors);
  }
  const { record } = adapter;
  const scaled = { ...record, alpha: record.alpha * weight, scale: record.scale * weight };
  return { ...adapter, record: scaled };
}

/** An adapter of the parts' layer with other numbers, to be scaled by 1. */
function made(
  parts: readonly Part[],
  structure: Structure,
  rank: number,
  factors: () => Factors,
): OutgoingAdapter {
  const [{ adapter }] = parts as [Part];
  const nodes = [...new Set(parts.flatMap((part) => part.adapter.nodes))];
  const alpha = rank + structure.hybridRank;
  const record = {
    ...adapter.record,
    ...structure,
    rank,
    alpha,
    scaling: 'standard',
    scale: 1,
  } as const;
  return { ...adapter, record, nodes, values: (factor) => factors()[factor] as Float64Array };
}

/** The structure to fit: what the options say, else that of the adapters. */
function structureFor(
  { name, parts }: CombinedLayer,
  options: CombineOptions,
): { structure: Structure; rank: number } {
  const records = parts.map(({ adapter }) => adapter.record);
  const [first] = records as [(typeof records)[number]];
  const rank = options.rank ?? Math.max(...records.map((record) => record.rank));
  const isOwn = options.structure === undefined && options.blocks === undefined && areAlike(parts);
  if (!isOwn) {
    const { structure = 'global', blocks = 4 } = options;
    return { structure: planStructure(first.in, first.out, { structure, rank, blocks }), rank };
  }
  // A block of a localized adapter has R/K ranks, whatever became of K in a layer that K does not divide.
  const blockRank = (rank * first.blockRank) / first.rank;
  if (!Number.isInteger(blockRank)) {
    const multiple = first.rank / first.blockRank;
    throw invalid(
      `rank ${rank} is not a multiple of ${multiple}, as the blocks of ${name} need it`,
    );
  }
  return { structure: { ...structureOf(first), blockRank, hybridRank: 0 }, rank };
}

/** The dense ΔW that a method wants. */
function deltaOf(
  { name, parts }: CombinedLayer,
  method: CombineMethod,
  { density = 1, seed = 0 }: CombineOptions,
): Float64Array {
  const dense = parts.map(({ adapter, weight, input }) => ({
    delta: denseDelta(adapter),
    weight,
    input,
  }));
  if (method === 'ties') return ties(dense, density);
  if (method === 'svd') return weightedSum(dense);
  return weightedSum(
    dense.map(({ delta, weight, input }) => {
      const random = generatorFor(seed, name, `dare ${input}`);
      return { delta: dropped(delta, density, random), weight };
    }),
  );
}
