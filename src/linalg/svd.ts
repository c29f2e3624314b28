/**
 * Truncated singular value decompositions A ≈ U · diag(s) · Vᵀ: exact for small matrices, by a
 * randomized block Krylov method for large ones (Musco and Musco, https://arxiv.org/abs/1504.05477).
 */
import { Matrix as DenseMatrix, SingularValueDecomposition } from 'ml-matrix';
import { DEFAULT_SEED } from '../options/common.js';
import { krylovSvd } from './krylov.js';
import { type Floats, type Matrix, sumOfSquares } from './products.js';
import type { TruncatedSvd } from './truncated-svd.js';

/** Options of `truncatedSvd`. */
export interface SvdOptions {
  /** Of the random start of the method for large matrices. Default 0. */
  readonly seed?: number | undefined;
}

// Up to so many numbers the exact decomposition is the quicker one.
const SMALL = 64 * 64;

/**
 * The best approximation of a row-major matrix by `rank` singular values (Eckart and Young), up to
 * what the randomized method leaves: its residual is within a fraction of a percent of the best one,
 * and exact where singular values fall off. The same numbers for the same seed.
 */
export async function truncatedSvd(
  data: Floats,
  rows: number,
  columns: number,
  rank: number,
  { seed = DEFAULT_SEED }: SvdOptions = {},
): Promise<TruncatedSvd> {
  const matrix = { data, rows, columns };
  const limit = Math.min(rank, rows, columns);
  if (rows * columns <= SMALL) return exactSvd(matrix, limit);
  return krylovSvd(matrix, limit, seed);
}

// Singular values below this share of the largest are rounding, and have no vectors.
const ROUNDING = 1e-14;

/** The decomposition of a small matrix, by ml-matrix. */
function exactSvd(matrix: Matrix, limit: number): TruncatedSvd {
  const { data, rows, columns } = matrix;
  const dense = new DenseMatrix(rows, columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) dense.set(i, j, data[i * columns + j]!);
  }
  const svd = new SingularValueDecomposition(dense, { autoTranspose: true });
  const values = svd.diagonal;
  const count = values.filter((value) => value > ROUNDING * values[0]!).length;
  const rank = Math.min(limit, count);
  const leading = (vectors: DenseMatrix, height: number) =>
    Float64Array.from({ length: height * rank }, (_, i) =>
      vectors.get(Math.floor(i / rank), i % rank),
    );
  return {
    ...{ rows, columns, rank },
    u: leading(svd.leftSingularVectors, rows),
    s: Float64Array.from(values.slice(0, rank)),
    v: leading(svd.rightSingularVectors, columns),
    squares: sumOfSquares(data),
    residual: sumOfSquares(Float64Array.from(values.slice(rank))),
  };
}
