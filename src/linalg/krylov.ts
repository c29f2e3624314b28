/**
 * The largest singular values of a large matrix. Random vectors, AᵀA times them, (AᵀA)² times them …
 * span a space; A's singular values are found within it. They come out closer than from a power
 * iteration with as many products, since no step of it is thrown away. Source: Musco and Musco,
 * Randomized block Krylov methods, https://arxiv.org/abs/1504.05477.
 */
import { Matrix as Dense, EigenvalueDecomposition } from 'ml-matrix';
import { generatorFor, normal } from '../random.js';
import {
  type DoubleMatrix,
  type Matrix,
  product,
  sumOfSquares,
  transposedProduct,
} from './products.js';
import type { TruncatedSvd } from './truncated-svd.js';

// Vectors beyond those asked for, and how many blocks of them are kept before the best vectors found
// become the start of another round.
const OVERSAMPLING = 8;
const BLOCKS = 4;
const ROUNDS = 4;

// Done when the last block adds less than this share to what the singular values capture. Where they fall
// off, that is in the first round; where all are alike, what is missed in the end is of this size.
const SETTLED = 2e-3;

/** The decomposition of `matrix` to `rank` singular values, at most as many as its smaller side. */
export async function krylovSvd(matrix: Matrix, rank: number, seed: number): Promise<TruncatedSvd> {
  const isWide = matrix.columns > matrix.rows;
  const map = isWide ? adjointMap(matrix) : mapOf(matrix);
  const { left, values, right } = await leadingTriplets(map, rank, seed);
  const squares = sumOfSquares(matrix.data);
  return {
    rows: matrix.rows,
    columns: matrix.columns,
    rank: values.length,
    u: isWide ? right : left,
    s: values,
    v: isWide ? left : right,
    squares,
    residual: Math.max(0, squares - sumOfSquares(values)),
  };
}

async function leadingTriplets(map: LinearMap, rank: number, seed: number) {
  const width = rank + OVERSAMPLING;
  const isSmall = BLOCKS * width >= map.columns;
  let start = isSmall ? identity(map.columns) : randomMatrix(map.columns, width, seed);
  for (let round = 1; ; round++) {
    const space = await subspace(map, start, isSmall ? 1 : BLOCKS);
    const { basis, images } = space;
    const gram = await transposedProduct(images, images);
    const { vectors, values } = leadingEigenvectors(gram, rank);
    if (isSmall || round === ROUNDS || isSettled(gram, space.last, values)) {
      const right = await product(basis, vectors);
      const scaled = await product(images, vectors);
      const left = columnsTimes(
        scaled,
        values.map((value) => 1 / value),
      );
      return { left: left.data, values, right: right.data };
    }
    start = await product(basis, leadingEigenvectors(gram, width).vectors);
  }
}

/** Whether the space without its `last` vectors captures nearly as much. */
function isSettled(gram: DoubleMatrix, last: number, values: Float64Array): boolean {
  const before = leadingEigenvectors(leadingPart(gram, gram.rows - last), values.length);
  const captured = sumOfSquares(values);
  return captured - sumOfSquares(before.values) <= SETTLED * captured;
}

function leadingPart({ data, columns }: DoubleMatrix, size: number): DoubleMatrix {
  const part = new Float64Array(size * size);
  for (let row = 0; row < size; row++) {
    part.set(data.subarray(row * columns, row * columns + size), row * size);
  }
  return { data: part, rows: size, columns: size };
}

/** Multiplies with A [rows, columns], the columns being its smaller side. */
interface LinearMap {
  readonly columns: number;
  apply(x: DoubleMatrix): Promise<DoubleMatrix>;
  adjoint(x: DoubleMatrix): Promise<DoubleMatrix>;
}

function mapOf(matrix: Matrix): LinearMap {
  return {
    columns: matrix.columns,
    apply: (x) => product(matrix, x),
    adjoint: (x) => transposedProduct(matrix, x),
  };
}

function adjointMap(matrix: Matrix): LinearMap {
  const { apply, adjoint } = mapOf(matrix);
  return { columns: matrix.rows, apply: adjoint, adjoint: apply };
}

/**
 * Orthonormal vectors that span `start` and AᵀA times it, again and again, and A times each of them.
 * `last` of them came last; 0 where nothing was left to come.
 */
async function subspace(map: LinearMap, start: DoubleMatrix, count: number) {
  const blocks: DoubleMatrix[] = [];
  const images: DoubleMatrix[] = [];
  let next = start;
  for (;;) {
    const block = await orthonormalized(next, blocks);
    if (block.columns > 0) {
      blocks.push(block);
      images.push(await map.apply(block));
    }
    if (block.columns === 0 || blocks.length === count) {
      return { basis: sideBySide(blocks), images: sideBySide(images), last: block.columns };
    }
    next = await map.adjoint(images.at(-1)!);
  }
}

function identity(size: number): DoubleMatrix {
  const data = new Float64Array(size * size);
  for (let i = 0; i < size; i++) data[i * size + i] = 1;
  return { data, rows: size, columns: size };
}

function randomMatrix(rows: number, columns: number, seed: number): DoubleMatrix {
  const random = generatorFor(seed, 'krylov', 'start');
  const data = Float64Array.from({ length: rows * columns }, () => normal(random));
  return { data, rows, columns };
}

// A rest of a vector below this share of its length is rounding.
const DEPENDENT = 1e-13;

/**
 * An orthonormal basis of what `block` adds to the orthonormal `others`. One whitening finds the
 * directions within seven digits of the largest; what it leaves is whitened in its turn.
 */
async function orthonormalized(
  block: DoubleMatrix,
  others: readonly DoubleMatrix[],
): Promise<DoubleMatrix> {
  const found: DoubleMatrix[] = [];
  let rest = withUnitColumns(block, 0);
  while (rest.columns > 0) {
    const outside = await without(rest, [...others, ...found]);
    rest = outside;
    const left = withUnitColumns(outside, DEPENDENT);
    if (left.columns === 0) break;
    // Twice: the first time loses digits where vectors are nearly dependent.
    const first = await whitened(left);
    found.push(await whitened(await without(first, [...others, ...found])));
  }
  return sideBySide(found);
}

/** `block` less its projection on orthonormal vectors. */
async function without(block: DoubleMatrix, others: readonly DoubleMatrix[]) {
  const data = block.data.slice();
  for (const other of others) {
    const rest = { ...block, data };
    const share = await product(other, await transposedProduct(other, rest));
    for (let i = 0; i < data.length; i++) data[i]! -= share.data[i]!;
  }
  return { ...block, data };
}

/** The columns that are longer than `shortest`, at length 1. */
function withUnitColumns(block: DoubleMatrix, shortest: number): DoubleMatrix {
  const lengths = columnLengths(block);
  const kept = [...lengths.keys()].filter((column) => lengths[column]! > shortest);
  const data = Float64Array.from({ length: block.rows * kept.length }, (_, at) => {
    const column = kept[at % kept.length]!;
    return block.data[Math.floor(at / kept.length) * block.columns + column]! / lengths[column]!;
  });
  return { data, rows: block.rows, columns: kept.length };
}

/**
 * block · E · diag(λ)^-½ for the eigenvectors E of blockᵀ·block: orthonormal columns that span the
 * same space, without those directions in which it has next to no extent. Source: Stathopoulos and
 * Wu, A block orthogonalization procedure with constant synchronization requirements (2002).
 */
async function whitened(block: DoubleMatrix): Promise<DoubleMatrix> {
  const gram = await transposedProduct(block, block);
  const { vectors, values } = leadingEigenvectors(gram, block.columns);
  return product(
    block,
    columnsTimes(
      vectors,
      values.map((value) => 1 / value),
    ),
  );
}

// Squares lose half of the digits: singular values below this share of the largest are rounding.
const ROUNDING = 1e-7;

/**
 * The right singular vectors of a tall matrix as columns, and its singular values from the largest on:
 * eigenvectors of its Gram matrix, and the roots of the eigenvalues.
 */
function leadingEigenvectors(gram: DoubleMatrix, limit: number) {
  const size = gram.columns;
  const { realEigenvalues: squares, eigenvectorMatrix } = new EigenvalueDecomposition(
    Dense.from1DArray(size, size, gram.data),
    { assumeSymmetric: true },
  );
  // They come in ascending order.
  const largest = squares.at(-1) ?? 0;
  const kept = squares.filter((square) => square > ROUNDING * ROUNDING * largest).length;
  const count = Math.min(limit, kept);
  const values = Float64Array.from({ length: count }, (_, i) => Math.sqrt(squares[size - 1 - i]!));
  const data = Float64Array.from({ length: size * count }, (_, at) =>
    eigenvectorMatrix.get(Math.floor(at / count), size - 1 - (at % count)),
  );
  return { vectors: { data, rows: size, columns: count }, values };
}

function columnLengths({ data, rows, columns }: DoubleMatrix): Float64Array {
  const squares = new Float64Array(columns);
  for (let at = 0; at < rows * columns; at++) squares[at % columns]! += data[at]! ** 2;
  return squares.map(Math.sqrt);
}

function columnsTimes({ data, rows, columns }: DoubleMatrix, factors: Float64Array): DoubleMatrix {
  return { data: data.map((value, at) => value * factors[at % columns]!), rows, columns };
}

function sideBySide(blocks: readonly DoubleMatrix[]): DoubleMatrix {
  const rows = blocks[0]?.rows ?? 0;
  const columns = blocks.reduce((sum, block) => sum + block.columns, 0);
  const data = new Float64Array(rows * columns);
  let at = 0;
  for (const block of blocks) {
    for (let row = 0; row < rows; row++) {
      const from = row * block.columns;
      data.set(block.data.subarray(from, from + block.columns), row * columns + at);
    }
    at += block.columns;
  }
  return { data, rows, columns };
}
