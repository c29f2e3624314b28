/** Any adapter as plain LoRA: one product of two thin matrices. */
import type { Factors } from '../analysis/norms.js';
import { blocksOf, type Structure, shapeOfA, shapeOfB } from './structure.js';

/** `ΔW = s · a · b` with a [in, rank] and b [rank, out], row-major. */
export interface PlainFactors {
  readonly rank: number;
  readonly a: Float64Array;
  readonly b: Float64Array;
}

/** The rank that a structure has as plain LoRA: that of its blocks together, and of its global part. */
export function plainRank(s: Structure): number {
  const blocks = s.structure === 'diagonal' ? s.grid[0] : s.grid[0] * s.grid[1];
  return blocks * s.blockRank + s.hybridRank;
}

/**
 * The same ΔW as one product, exactly: the numbers are copied, not computed. Every block (n, j) takes
 * as many columns of a and rows of b as it has ranks; a is zero there but for the rows of n, b but for
 * the columns of j. A hybrid's global part comes last.
 */
export function plainFactors(s: Structure, factors: Factors): PlainFactors {
  const rank = plainRank(s);
  const a = new Float64Array(s.in * rank);
  const b = new Float64Array(rank * s.out);
  const [height, width] = [s.in / s.grid[0], s.out / s.grid[1]];
  const strideOfA = shapeOfA(s).at(-1)!;
  const rowsOfB = shapeOfB(s).at(-2)!;
  let at = 0;
  for (const { n, j, columnOfA, rowOfB } of blocksOf(s)) {
    for (let x = n * height; x < (n + 1) * height; x++) {
      for (let i = 0; i < s.blockRank; i++) {
        a[x * rank + at + i] = factors.a[x * strideOfA + columnOfA + i]!;
      }
    }
    for (let i = 0; i < s.blockRank; i++) {
      const from = (j * rowsOfB + rowOfB + i) * width;
      b.set(factors.b.subarray(from, from + width), (at + i) * s.out + j * width);
    }
    at += s.blockRank;
  }
  for (let x = 0; x < s.in; x++) {
    for (let i = 0; i < s.hybridRank; i++) {
      a[x * rank + at + i] = factors.generalA![x * s.hybridRank + i]!;
    }
  }
  if (s.hybridRank > 0) b.set(factors.generalB!, at * s.out);
  return { rank, a, b };
}

/** left [rows, inner] · right [inner, columns] */
export function product(
  left: Float64Array,
  right: Float64Array,
  rows: number,
  inner: number,
  columns: number,
): Float64Array {
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < inner; i++) {
      const factor = left[row * inner + i]!;
      // Stacked blocks are mostly zeros.
      if (factor === 0) continue;
      const [to, from] = [row * columns, i * columns];
      for (let column = 0; column < columns; column++) {
        result[to + column]! += factor * right[from + column]!;
      }
    }
  }
  return result;
}

/** [rows, columns] as [columns, rows] */
export function transposed(values: Float64Array, rows: number, columns: number): Float64Array {
  const result = new Float64Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = values[row * columns + column]!;
    }
  }
  return result;
}
