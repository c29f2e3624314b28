/** Any adapter as plain LoRA: one product of two thin matrices. */

import { type Structure, stackedRank, structureOf } from '../structure/structure.js';
import { factorsOf, type NewAdapter } from './factors.js';
import type { Factors } from './norms.js';
import { blockTerms, generalTerms } from './terms.js';

/** `ΔW = s · a · b` with a [in, rank] and b [rank, out], row-major. */
export interface PlainFactors {
  readonly rank: number;
  readonly a: Float64Array;
  readonly b: Float64Array;
}

/** The rank that a structure has as plain LoRA: that of its blocks together, and of its global part. */
export function plainRank(s: Structure): number {
  return stackedRank(s) + s.hybridRank;
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
  let at = 0;
  const put = (column: Float64Array, row: Float64Array, firstRow: number, firstColumn: number) => {
    for (let x = 0; x < column.length; x++) a[(firstRow + x) * rank + at] = column[x]!;
    b.set(row, at * s.out + firstColumn);
    at++;
  };
  for (const { n, j, column, row } of blockTerms(s, factors)) {
    put(column, row, n * column.length, j * row.length);
  }
  for (const { column, row } of generalTerms(s, factors)) put(column, row, 0, 0);
  return { rank, a, b };
}

/** The same product at a higher rank: with zeros at the end. */
export function padded({ rank, a, b }: PlainFactors, wanted: number): PlainFactors {
  if (rank === wanted) return { rank, a, b };
  const [rows, out] = [a.length / rank, b.length / rank];
  const wider = new Float64Array(rows * wanted);
  for (let row = 0; row < rows; row++) {
    wider.set(a.subarray(row * rank, (row + 1) * rank), row * wanted);
  }
  const longer = new Float64Array(wanted * out);
  longer.set(b);
  return { rank: wanted, a: wider, b: longer };
}

/** ΔW [in, out] with its scale, as it is added to the weight. */
export function denseDelta(adapter: Pick<NewAdapter, 'record' | 'values'>): Float64Array {
  const { record } = adapter;
  const { a, b, rank } = plainFactors(structureOf(record), factorsOf(adapter));
  const scaled = a.map((value) => value * record.scale);
  return product(scaled, b, record.in, rank, record.out);
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
