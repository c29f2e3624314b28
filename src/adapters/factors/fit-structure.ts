/**
 * The adapter of a given structure that comes closest to a given ΔW, by the Frobenius norm. The norm's
 * square is a sum over blocks, so that each block is a problem of its own, and the truncated singular
 * value decomposition solves it (Eckart and Young). A = U·√s and B = √s·Vᵀ share the size of ΔW.
 */

import { type Floats, product, sumOfSquares } from '../../linalg/products.js';
import { type SvdOptions, truncatedSvd } from '../../linalg/svd.js';
import type { TruncatedSvd } from '../../linalg/truncated-svd.js';
import {
  type Block,
  blocksOf,
  type Structure,
  shapeOfA,
  shapeOfB,
} from '../structure/structure.js';

/** An adapter's numbers, to be scaled by 1, and how close ΔW they come. */
export interface StructureFit {
  /** In the shapes of structure.ts, row-major. */
  readonly a: Float64Array;
  /** B of the blocks, laid out as in the adapter. */
  readonly b: Float64Array;
  /** [in, h] and [h, out] of a hybrid's global part. */
  readonly generalA?: Float64Array | undefined;
  /** B of the part that spans the whole matrix. */
  readonly generalB?: Float64Array | undefined;
  /** |ΔW − fit| / |ΔW|; 0 where ΔW is 0. */
  readonly error: number;
  /** |ΔW|² − |ΔW − fit|². */
  readonly captured: number;
}

/**
 * The best fit of `delta` [in, out], row-major. A hybrid's two parts are fitted in turns, each to what
 * the other leaves, which ends near the best and need not reach it.
 */
export async function fitStructure(
  delta: Floats,
  structure: Structure,
  options: SvdOptions = {},
): Promise<StructureFit> {
  if (structure.hybridRank > 0) return fitHybrid(delta, structure, options);
  const blocks = await decompose(delta, structure, structure.blockRank, options);
  return fitOf(blocks, structure);
}

/** The decomposed blocks of a ΔW: one decomposition answers every rank up to the one it was made for. */
export interface BlockDecomposition {
  /** The singular values and vectors of each block, row by row of the grid. */
  readonly blocks: readonly TruncatedSvd[];
  /** |ΔW|². */
  readonly squares: number;
}

/**
 * Decomposes the blocks that a structure has, up to `rank` singular values each; `structure.blockRank`
 * is not looked at.
 */
export async function decompose(
  delta: Floats,
  structure: Structure,
  rank: number,
  options: SvdOptions = {},
): Promise<BlockDecomposition> {
  const [height, width] = blockSize(structure);
  const blocks: TruncatedSvd[] = [];
  for (const block of blocksOf(structure)) {
    const values = blockOf(delta, structure, block);
    blocks.push(await truncatedSvd(values, height, width, rank, options));
  }
  return { blocks, squares: sumOfSquares(delta) };
}

/** |fit|² for every block rank from 0 to `rank`: what a fit of that rank captures of |ΔW|². */
export function capturedByRank({ blocks }: BlockDecomposition, rank: number): Float64Array {
  const captured = new Float64Array(rank + 1);
  for (const { s, rows, columns, squares } of blocks) {
    for (let r = 1, sum = 0; r <= rank; r++) {
      sum += (s[r - 1] ?? 0) ** 2;
      // At its full rank a block is all there, whatever rounding made of its singular values.
      captured[r]! += r < Math.min(rows, columns) ? sum : squares;
    }
  }
  return captured;
}

/** The fit of `structure.blockRank` from a decomposition of that rank or a higher one. */
export function fitOf(decomposition: BlockDecomposition, structure: Structure): StructureFit {
  const a = new Float64Array(count(shapeOfA(structure)));
  const b = new Float64Array(count(shapeOfB(structure)));
  let rest = decomposition.squares;
  [...blocksOf(structure)].forEach((block, i) => {
    const svd = decomposition.blocks[i]!;
    putBlock(structure, block, svd, a, b);
    rest -= sumOfSquares(svd.s.subarray(0, structure.blockRank));
  });
  return { a, b, ...measures(decomposition.squares, rest) };
}

function measures(squares: number, rest: number): Pick<StructureFit, 'error' | 'captured'> {
  const left = Math.max(0, rest);
  return { error: squares === 0 ? 0 : Math.sqrt(left / squares), captured: squares - left };
}

/** Writes U·√s into the block's columns of A, and √s·Vᵀ into its rows of B. */
function putBlock(
  structure: Structure,
  { n, j, columnOfA, rowOfB }: Block,
  { u, s, v, rank }: TruncatedSvd,
  a: Float64Array,
  b: Float64Array,
): void {
  const [height, width] = blockSize(structure);
  const strideOfA = shapeOfA(structure).at(-1)!;
  const rowsOfB = shapeOfB(structure).at(-2)!;
  for (let k = 0; k < Math.min(rank, structure.blockRank); k++) {
    const root = Math.sqrt(s[k]!);
    const atA = n * height * strideOfA + columnOfA + k;
    for (let x = 0; x < height; x++) a[atA + x * strideOfA] = u[x * rank + k]! * root;
    const atB = (j * rowsOfB + rowOfB + k) * width;
    for (let x = 0; x < width; x++) b[atB + x] = v[x * rank + k]! * root;
  }
}

// Most of what turns can win is won in the first few.
const TURNS = 12;
const CONVERGED = 1e-4;

async function fitHybrid(
  delta: Floats,
  structure: Structure,
  options: SvdOptions,
): Promise<StructureFit> {
  const { hybridRank: h } = structure;
  const grid = { ...structure, hybridRank: 0 };
  const general = { ...grid, structure: 'global', grid: [1, 1], blockRank: h } as const;
  const squares = sumOfSquares(delta);
  let gridPart: Float64Array | undefined;
  let best: StructureFit | undefined;
  for (let turn = 0; turn < TURNS; turn++) {
    const outside = await fitStructure(minus(delta, gridPart), general, options);
    const left = minus(delta, await dense(outside, general));
    const inside = await fitStructure(left, grid, options);
    const rest = sumOfSquares(left) - inside.captured;
    const { a, b } = inside;
    const fit = { a, b, generalA: outside.a, generalB: outside.b, ...measures(squares, rest) };
    const gain = best ? best.error - fit.error : 1;
    if (gain > 0) best = fit;
    if (gain <= CONVERGED * fit.error) break;
    gridPart = await dense(inside, grid);
  }
  return best!;
}

function minus(values: Floats, others: Float64Array | undefined): Float64Array {
  return Float64Array.from(values, (value, i) => value - (others?.[i] ?? 0));
}

/** The matrix [in, out] that a fit without a global part represents. */
async function dense({ a, b }: StructureFit, structure: Structure): Promise<Float64Array> {
  const matrix = new Float64Array(structure.in * structure.out);
  const [height, width] = blockSize(structure);
  const { blockRank: rank } = structure;
  const strideOfA = shapeOfA(structure).at(-1)!;
  const rowsOfB = shapeOfB(structure).at(-2)!;
  for (const { n, j, columnOfA, rowOfB } of blocksOf(structure)) {
    const left = Float64Array.from({ length: height * rank }, (_, i) => {
      const row = n * height + Math.floor(i / rank);
      return a[row * strideOfA + columnOfA + (i % rank)]!;
    });
    const start = (j * rowsOfB + rowOfB) * width;
    const right = b.slice(start, start + rank * width);
    const values = await product(
      { data: left, rows: height, columns: rank },
      { data: right, rows: rank, columns: width },
    );
    for (let x = 0; x < height; x++) {
      const row = values.data.subarray(x * width, (x + 1) * width);
      matrix.set(row, (n * height + x) * structure.out + j * width);
    }
  }
  return matrix;
}

function blockSize({ in: rows, out: columns, grid }: Structure): [height: number, width: number] {
  return [rows / grid[0], columns / grid[1]];
}

/** The numbers of one block; those of the whole are not copied. */
function blockOf(delta: Floats, structure: Structure, { n, j }: Block): Floats {
  const [height, width] = blockSize(structure);
  const { out } = structure;
  if (width === out) return delta.subarray(n * height * out, (n + 1) * height * out);
  const values = delta instanceof Float32Array ? Float32Array : Float64Array;
  const block = new values(height * width);
  for (let x = 0; x < height; x++) {
    const from = (n * height + x) * out + j * width;
    block.set(delta.subarray(from, from + width), x * width);
  }
  return block;
}

function count(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}
