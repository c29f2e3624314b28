/** The structures that a layer's change is fitted with, and how much each of them captures. */

import {
  type BlockDecomposition,
  capturedByRank,
  decompose,
} from '../../adapters/factors/fit-structure.js';
import type { FitStructure } from '../../adapters/structure/choices.js';
import {
  DEFAULT_BLOCKS,
  isPlain,
  parameterCount,
  planStructure,
  type Structure,
  type StructureName,
} from '../../adapters/structure/structure.js';
import { OnnxLoraError } from '../../errors.js';
import type { Floats } from '../../linalg/products.js';
import { type Choice, type Curve, choiceWithin } from '../allocation.js';

/** A structure and K. */
export interface Grid {
  /** The blocks that the weight is divided into. */
  readonly structure: StructureName;
  /** K, the most blocks along a dimension. */
  readonly blocks: number;
}

const AUTO_BLOCKS = [2, 4, 8];

/** The grids to try; with `auto`, plain LoRA is the first of them. */
export function gridsFor(structure: FitStructure, blocks: number | undefined): Grid[] {
  if (structure === 'global') return [{ structure, blocks: 1 }];
  if (structure !== 'auto') return [{ structure, blocks: blocks ?? DEFAULT_BLOCKS }];
  const sizes = blocks === undefined ? AUTO_BLOCKS : [blocks];
  return [
    { structure: 'global', blocks: 1 },
    ...(['diagonal', 'localized'] as const).flatMap((name) =>
      sizes.map((k) => ({ structure: name, blocks: k })),
    ),
  ];
}

/** The structure of a grid on a weight, with a rank for its blocks. */
export function structureAt(grid: Grid, size: Size, blockRank: number): Structure {
  return planStructure(size.in, size.out, { ...grid, rank: rankOf(grid, blockRank) });
}

/** R, the rank of the LoRA that has as many parameters. */
export function rankOf({ structure, blocks }: Grid, blockRank: number): number {
  return structure === 'localized' ? blockRank * blocks : blockRank;
}

/** Of a weight. */
export interface Size {
  readonly in: number;
  readonly out: number;
}

/** The rank beyond which nothing is left. */
export function fullRank(size: Size): number {
  return Math.min(size.in, size.out);
}

/** Fits of a layer by every grid. */
export interface Measured {
  readonly curves: readonly Curve[];
  readonly decompositions: readonly BlockDecomposition[];
}

export interface MeasureOptions {
  readonly grids: readonly Grid[];
  /** The R up to which the curves go. */
  readonly rank: number;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

/** Decomposes a layer's change ΔW [in, out] by every grid. */
export async function measure(
  values: Floats,
  size: Size,
  { grids, rank, seed, signal }: MeasureOptions,
): Promise<Measured> {
  const curves: Curve[] = [];
  const decompositions: BlockDecomposition[] = [];
  const known = new Set<string>();
  for (const grid of grids) {
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
    const structure = structureAt(grid, size, 1);
    // A size that K does not divide may give the grid of another K.
    const same = isPlain(structure) ? 'plain' : `${structure.structure} ${structure.grid.join()}`;
    if (known.has(same)) {
      decompositions.push(NOTHING);
      curves.push({ unit: parameterCount(structure), captured: Float64Array.of(0) });
      continue;
    }
    known.add(same);
    const blockRank = highestRank(structure, rank < fullRank(size) ? rank / rankOf(grid, 1) : rank);
    const blocks = await decompose(values, structure, blockRank, { seed });
    decompositions.push(blocks);
    curves.push({ unit: parameterCount(structure), captured: capturedByRank(blocks, blockRank) });
  }
  return { curves, decompositions };
}

/** Of a block: `rank` where it has as much, and 1 at least. */
function highestRank({ in: rows, out: columns, grid }: Structure, rank: number): number {
  const full = Math.min(rows / grid[0], columns / grid[1]);
  return Math.max(1, Math.min(full, Math.floor(rank)));
}

const NOTHING: BlockDecomposition = { blocks: [], squares: 0 };

/**
 * The choice that captures the most for the parameters of a LoRA of rank R.
 * @param rounding a difference of |fit|² that means nothing: the first curve wins then
 */
export function bestWithin(curves: readonly Curve[], parameters: number, rounding: number): Choice {
  const choices = curves.map((curve, i) => choiceWithin(curve, i, parameters));
  return choices.reduce((a, b) => (b.captured > a.captured + rounding ? b : a));
}

/**
 * The meaningful part of the curve: ends where no more than `rounding` of |ΔW|² is left, and is not
 * higher there than all others that get as far.
 */
export function untilRounding({ unit, captured }: Curve, squares: number, rounding: number): Curve {
  const most = squares - rounding;
  const end = captured.findIndex((value) => value >= most);
  if (end < 0) return { unit, captured };
  const useful = captured.slice(0, end + 1);
  useful[end] = most;
  return { unit, captured: useful };
}
