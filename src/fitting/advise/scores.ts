/**
 * Scores of each structure's fit to a matrix, at equal parameters. Where the matrix is a mean over data, its
 * structures are fitted to one half of the data and measured on the other: what a fit says about noise
 * then counts for nothing.
 */
import {
  type BlockDecomposition,
  capturedByRank,
  decompose,
} from '../../adapters/factors/fit-structure.js';
import {
  blocksOf,
  parameterCount,
  planStructure,
  type Structure,
} from '../../adapters/structure/structure.js';
import { type Floats, sumOfSquares } from '../../linalg/products.js';
import type { SvdOptions } from '../../linalg/svd.js';
import { type Grid, gridsFor, type Size } from '../fit/candidates.js';

/** A matrix [in, out] that a structure is to say, row-major. */
export interface Evidence {
  readonly values: Floats;
  /** The same from two halves of the data, where it is a mean. */
  readonly halves?: readonly [Floats, Floats] | undefined;
}

export interface Score extends Grid {
  readonly plan: Structure;
  readonly parameters: number;
  /**
   * The share of |matrix|² that the best fit captures. With halves the mean of two: of the fit to each
   * half, scaled to its best, in the other half.
   */
  readonly share: number;
  /** √(1 - share): |matrix - fit| / |matrix|. */
  readonly error: number;
  /** The shares in both halves. */
  readonly heldOut?: readonly [number, number];
}

/**
 * The structures of a weight that cost what a LoRA of the rank does, plain LoRA first. A grid has to
 * divide both dimensions, or it would cost less.
 */
export function candidatesFor(size: Size, rank: number): Grid[] {
  return gridsFor('auto', undefined).filter(
    ({ structure, blocks }) =>
      size.in % blocks === 0 &&
      size.out % blocks === 0 &&
      (structure !== 'localized' || rank % blocks === 0),
  );
}

/** Measures a candidate of the given rank on a matrix [in, out]. */
export async function scoreOf(
  { values, halves }: Evidence,
  size: Size,
  { structure, blocks }: Grid,
  rank: number,
  options: SvdOptions = {},
): Promise<Score> {
  const plan = planStructure(size.in, size.out, { structure, blocks, rank });
  const known = { structure, blocks, plan, parameters: parameterCount(plan) };
  const fit = (matrix: Floats) => decompose(matrix, plan, plan.blockRank, options);
  if (!halves) {
    const { squares, ...rest } = await fit(values);
    const captured = capturedByRank({ squares, ...rest }, plan.blockRank).at(-1)!;
    return { ...known, ...measures(squares === 0 ? 0 : captured / squares) };
  }
  const [first, second] = halves;
  const heldOut = [
    heldOutShare(await fit(first), plan, second),
    heldOutShare(await fit(second), plan, first),
  ] as const;
  return { ...known, ...measures((heldOut[0] + heldOut[1]) / 2), heldOut };
}

function measures(share: number): Pick<Score, 'share' | 'error'> {
  return { share, error: Math.sqrt(Math.max(0, 1 - share)) };
}

/**
 * ⟨fit, M⟩² / (|fit|²·|M|²): the share of |M|² that a fit to other numbers captures when it is scaled as
 * suits M. Of its own numbers' fit it is what the fit captures. 0 where the fit points away from M.
 */
function heldOutShare(fit: BlockDecomposition, plan: Structure, matrix: Floats): number {
  const captured = capturedByRank(fit, plan.blockRank).at(-1)!;
  const squares = sumOfSquares(matrix);
  if (captured === 0 || squares === 0) return 0;
  const product = [...blocksOf(plan)].reduce(
    (sum, block, i) => sum + innerProduct(fit.blocks[i]!, plan, block, matrix),
    0,
  );
  return product <= 0 ? 0 : product ** 2 / (captured * squares);
}

/** ⟨U·diag(s)·Vᵀ, M⟩ over one block of M. */
function innerProduct(
  { u, s, v, rank }: BlockDecomposition['blocks'][number],
  plan: Structure,
  { n, j }: { readonly n: number; readonly j: number },
  matrix: Floats,
): number {
  const [height, width] = [plan.in / plan.grid[0], plan.out / plan.grid[1]];
  const row = new Float64Array(rank);
  let sum = 0;
  for (let x = 0; x < height; x++) {
    row.fill(0);
    const start = (n * height + x) * plan.out + j * width;
    for (let y = 0; y < width; y++) {
      const value = matrix[start + y]!;
      for (let k = 0; k < rank; k++) row[k]! += value * v[y * rank + k]!;
    }
    for (let k = 0; k < rank; k++) sum += u[x * rank + k]! * s[k]! * row[k]!;
  }
  return sum;
}
