/** The adapters of one layer as one. */

import { OnnxLoraError } from '../../errors.js';
import { DEFAULT_SEED } from '../../options/common.js';
import { generatorFor } from '../../random.js';
import { fitStructure } from '../factors/fit-structure.js';
import type { Factors } from '../factors/norms.js';
import { denseDelta, plainFactors } from '../factors/plain.js';
import { truncated } from '../factors/truncate.js';
import type { OutgoingAdapter } from '../files/adapter-contents.js';
import type { CombineMethod } from '../structure/choices.js';
import {
  DEFAULT_BLOCKS,
  isPlain,
  planStructure,
  type Structure,
  structureOf,
} from '../structure/structure.js';
import { areAlike, concatenated } from './concatenate.js';
import type { CombinedLayer, Part } from './layers.js';
import type { MethodOptions } from './method-options.js';
import { dropped, ties, weightedSum } from './task-arithmetic.js';

export type { MethodOptions };

/** An adapter that was made of others. */
export interface Combination {
  readonly adapter: OutgoingAdapter;
  /** |ΔW wanted - ΔW made| / |ΔW wanted|. */
  readonly error: number;
}

/**
 * Combines the adapters of a layer.
 * @throws OnnxLoraError `invalid-argument` for a rank that the structure cannot have
 */
export async function combineLayer(
  layer: CombinedLayer,
  method: CombineMethod,
  options: MethodOptions,
): Promise<Combination> {
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
  options: MethodOptions,
): { structure: Structure; rank: number } {
  const records = parts.map(({ adapter }) => adapter.record);
  const [first] = records as [(typeof records)[number]];
  const rank = options.rank ?? Math.max(...records.map((record) => record.rank));
  if (options.structure !== undefined || !areAlike(parts)) {
    const { structure = 'global', blocks = DEFAULT_BLOCKS } = options;
    return { structure: planStructure(first.in, first.out, { structure, rank, blocks }), rank };
  }
  // A block of a localized adapter has R/K ranks, whatever became of K in a layer that K does not divide.
  const blockRank = (rank * first.blockRank) / first.rank;
  if (!Number.isInteger(blockRank)) {
    const multiple = first.rank / first.blockRank;
    throw new OnnxLoraError(
      'invalid-argument',
      `rank ${rank} is not a multiple of ${multiple}, as the blocks of ${name} need it`,
      { hint: 'Take another `rank`, or another `structure`.' },
    );
  }
  return { structure: { ...structureOf(first), blockRank, hybridRank: 0 }, rank };
}

/** The dense ΔW that a method wants. */
function deltaOf(
  { name, parts }: CombinedLayer,
  method: CombineMethod,
  { density = 1, seed = DEFAULT_SEED }: MethodOptions,
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
