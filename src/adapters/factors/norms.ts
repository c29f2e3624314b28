/**
 * Frobenius norms of ΔW and its blocks, from the factors alone. For a product P·Q of rank r
 *
 *     |P·Q|² = trace(Qᵀ·PᵀP·Q) = Σ (PᵀP) ∘ (QQᵀ)
 *
 * needs two r x r matrices instead of a matrix as large as the weight. A hybrid's block is
 * [A, Ag]·[B; Bg], whose square falls apart into |AB|² + 2⟨AB, AgBg⟩ + |AgBg|², each of that kind.
 */

import type { Floats } from '../../linalg/products.js';
import { type Block, blocksOf, type Structure, shapeOfA } from '../structure/structure.js';

/** The numbers of an adapter, row-major in the shapes of structure.ts. */
export interface Factors {
  readonly a: Floats;
  readonly b: Floats;
  /** [in, h] and [h, out] of a hybrid's global part. */
  readonly generalA?: Floats | undefined;
  readonly generalB?: Floats | undefined;
}

/**
 * |ΔW[n, j]| for every block of the grid, as rows of input blocks n. Blocks that a diagonal
 * structure does not have are 0, or what a hybrid's global part puts there.
 */
export function blockNorms(s: Structure, factors: Factors, scale: number): Float64Array[] {
  const [kIn, kOut] = s.grid;
  const squares = Array.from({ length: kIn }, () => new Float64Array(kOut));
  const general = generalPart(s, factors);
  if (general) {
    const left = Array.from({ length: kIn }, (_, n) => columnGram(general.rows(n)));
    const right = Array.from({ length: kOut }, (_, j) => rowGram(general.columns(j)));
    for (const [n, row] of squares.entries()) {
      for (let j = 0; j < kOut; j++) row[j] = dot(left[n]!, right[j]!);
    }
  }
  for (const block of blocksOf(s)) {
    squares[block.n]![block.j]! += blockSquare(s, factors, block, general);
  }
  return squares.map((row) => row.map((square) => norm(square, scale)));
}

/** |ΔW|: the root of the sum of the blocks' squares, without a number for each block. */
export function totalNorm(s: Structure, factors: Factors, scale: number): number {
  const general = generalPart(s, factors);
  let sum = general ? dot(columnGram(general.a), rowGram(general.b)) : 0;
  for (const block of blocksOf(s)) sum += blockSquare(s, factors, block, general);
  return norm(sum, scale);
}

// If the parts of a hybrid cancel, rounding can leave the sum a little below 0.
function norm(square: number, scale: number): number {
  return Math.abs(scale) * Math.sqrt(Math.max(0, square));
}

/** |AB|² + 2⟨AB, AgBg⟩ of one block. */
function blockSquare(
  s: Structure,
  factors: Factors,
  block: Block,
  general: GeneralPart | undefined,
): number {
  const a = blockOfA(s, factors.a, block);
  const b = blockOfB(s, factors.b, block);
  const own = dot(columnGram(a), rowGram(b));
  if (!general) return own;
  const generalA = general.rows(block.n);
  const generalB = general.columns(block.j);
  return own + 2 * dot(columnGram(a, generalA), rowGram(b, generalB));
}

/** A matrix inside a row-major one. */
interface View {
  readonly data: Floats;
  readonly start: number;
  readonly stride: number;
  readonly rows: number;
  readonly columns: number;
}

function blockOfA(s: Structure, data: Floats, { n, columnOfA }: Block): View {
  const rows = s.in / s.grid[0];
  const stride = shapeOfA(s).at(-1)!;
  return { data, start: n * rows * stride + columnOfA, stride, rows, columns: s.blockRank };
}

function blockOfB(s: Structure, data: Floats, { j, rowOfB }: Block): View {
  const columns = s.out / s.grid[1];
  const height = s.structure === 'diagonal' ? s.blockRank : s.grid[0] * s.blockRank;
  const start = (j * height + rowOfB) * columns;
  return { data, start, stride: columns, rows: s.blockRank, columns };
}

interface GeneralPart {
  readonly a: View;
  readonly b: View;
  /** The rows of Ag that belong to input block n. */
  rows(n: number): View;
  /** The columns of Bg that belong to output block j. */
  columns(j: number): View;
}

function generalPart(s: Structure, { generalA, generalB }: Factors): GeneralPart | undefined {
  if (s.hybridRank === 0 || !generalA || !generalB) return undefined;
  const rank = s.hybridRank;
  const a = { data: generalA, start: 0, stride: rank, rows: s.in, columns: rank };
  const b = { data: generalB, start: 0, stride: s.out, rows: rank, columns: s.out };
  const height = s.in / s.grid[0];
  const width = s.out / s.grid[1];
  return {
    a,
    b,
    rows: (n) => ({ ...a, start: n * height * rank, rows: height }),
    columns: (j) => ({ ...b, start: j * width, columns: width }),
  };
}

// Four rows (of the sum, or of y) at a time: a quarter of the loads and stores for the same products.
const UNROLL = 4;

/** xᵀ·y */
function columnGram(x: View, y: View = x): Float64Array {
  const gram = new Float64Array(x.columns * y.columns);
  const whole = x.rows - (x.rows % UNROLL);
  for (let i = 0; i < whole; i += UNROLL) addFourRows(gram, x, y, i);
  for (let i = whole; i < x.rows; i++) addRow(gram, x, y, i);
  return x === y ? mirrored(gram, x.columns) : gram;
}

function addFourRows(gram: Float64Array, x: View, y: View, i: number): void {
  const [left, right] = [x.data, y.data];
  const [x0, x1, x2, x3] = fourRows(x, i);
  const [y0, y1, y2, y3] = fourRows(y, i);
  for (let p = 0; p < x.columns; p++) {
    const [a, b, c, d] = [left[x0 + p]!, left[x1 + p]!, left[x2 + p]!, left[x3 + p]!];
    const at = p * y.columns;
    for (let q = x === y ? p : 0; q < y.columns; q++) {
      gram[at + q]! +=
        a * right[y0 + q]! + b * right[y1 + q]! + c * right[y2 + q]! + d * right[y3 + q]!;
    }
  }
}

function addRow(gram: Float64Array, x: View, y: View, i: number): void {
  const [rowOfX, rowOfY] = [x.start + i * x.stride, y.start + i * y.stride];
  for (let p = 0; p < x.columns; p++) {
    const value = x.data[rowOfX + p]!;
    const at = p * y.columns;
    for (let q = x === y ? p : 0; q < y.columns; q++) gram[at + q]! += value * y.data[rowOfY + q]!;
  }
}

/** x·yᵀ */
function rowGram(x: View, y: View = x): Float64Array {
  const gram = new Float64Array(x.rows * y.rows);
  for (let p = 0; p < x.rows; p++) {
    let q = x === y ? p : 0;
    for (; q + UNROLL <= y.rows; q += UNROLL) setFour(gram, x, y, p, q);
    for (; q < y.rows; q++) gram[p * y.rows + q] = rowProduct(x, y, p, q);
  }
  return x === y ? mirrored(gram, x.rows) : gram;
}

function setFour(gram: Float64Array, x: View, y: View, p: number, q: number): void {
  const [left, right] = [x.data, y.data];
  const row = x.start + p * x.stride;
  const [y0, y1, y2, y3] = fourRows(y, q);
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let i = 0; i < x.columns; i++) {
    const value = left[row + i]!;
    a += value * right[y0 + i]!;
    b += value * right[y1 + i]!;
    c += value * right[y2 + i]!;
    d += value * right[y3 + i]!;
  }
  gram.set([a, b, c, d], p * y.rows + q);
}

function rowProduct(x: View, y: View, p: number, q: number): number {
  const [rowOfX, rowOfY] = [x.start + p * x.stride, y.start + q * y.stride];
  let sum = 0;
  for (let i = 0; i < x.columns; i++) sum += x.data[rowOfX + i]! * y.data[rowOfY + i]!;
  return sum;
}

function fourRows({ start, stride }: View, i: number): [number, number, number, number] {
  const first = start + i * stride;
  return [first, first + stride, first + 2 * stride, first + 3 * stride];
}

/** Completes a symmetric matrix of which the upper half was computed. */
function mirrored(gram: Float64Array, size: number): Float64Array {
  for (let p = 1; p < size; p++) {
    for (let q = 0; q < p; q++) gram[p * size + q] = gram[q * size + p]!;
  }
  return gram;
}

function dot(x: Float64Array, y: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}
