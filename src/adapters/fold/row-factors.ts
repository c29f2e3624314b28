import type { Factors } from '../factors/norms.js';
import type { Structure } from '../structure/structure.js';
import { type Strip, tiled } from './panel.js';

/** A factor of a block, by row and column. */
type Matrix = (row: number, column: number) => number;

/** A part of ΔW, as the file stores the weight: `left · right`. */
interface Part {
  readonly column: number;
  readonly width: number;
  readonly rank: number;
  /** The row of ΔW that is the first of `left`. */
  readonly firstRow: number;
  readonly left: Matrix;
  readonly right: Float64Array;
}

/** ΔW of one adapter as the file stores the weight, [in, out] or [out, in], a run of rows at a time. */
export class RowFactors {
  private readonly blockRows: number;
  /** The rows of the stored weight that it changes. */
  private readonly first: number;
  private readonly rows: number;
  /** The first of the columns that it changes. */
  private readonly column: number;
  private cached: { block: number; parts: readonly Part[] } | undefined;

  /**
   * @param scale what A · B is multiplied with
   * @param transposed the rows are those of ΔWᵀ
   */
  constructor(
    private readonly structure: Structure,
    private readonly factors: Factors,
    private readonly scale: number,
    private readonly transposed: boolean,
  ) {
    const [kIn, kOut] = structure.grid;
    this.blockRows = transposed ? structure.out / kOut : structure.in / kIn;
    const first = structure.part?.first ?? 0;
    [this.first, this.column] = transposed ? [first, 0] : [0, first];
    this.rows = transposed ? structure.out : structure.in;
  }

  /** The end of a run of rows that begins at `start`: it may not cross the end of a block. */
  endOfRun(start: number): number {
    const own = start - this.first;
    if (own < 0) return this.first;
    if (own >= this.rows) return Number.POSITIVE_INFINITY;
    return this.first + (Math.floor(own / this.blockRows) + 1) * this.blockRows;
  }

  /** Rows `start` to `end` of the stored weight, a run that crosses no block, as a sum of products. */
  strips(start: number, end: number): Strip[] {
    const [from, to] = [start - this.first, end - this.first];
    if (from < 0 || from >= this.rows) return [];
    const block = Math.floor(from / this.blockRows);
    if (this.cached?.block !== block) this.cached = { block, parts: this.parts(block) };
    return this.cached.parts.map((part) => ({
      ...part,
      column: this.column + part.column,
      left: this.leftRows(part, from, to),
    }));
  }

  private leftRows({ rank, firstRow, left }: Part, start: number, end: number): Float64Array {
    const values = new Float64Array((end - start) * rank);
    let at = 0;
    for (let row = start - firstRow; row < end - firstRow; row++) {
      for (let i = 0; i < rank; i++) values[at++] = this.scale * left(row, i);
    }
    return values;
  }

  /** The blocks beside each other, and the general part of a hybrid. */
  private parts(block: number): Part[] {
    const { structure, grid, blockRank: rank, hybridRank, in: features, out } = this.structure;
    const { transposed } = this;
    const beside = transposed ? grid[0] : grid[1];
    const width = transposed ? features / grid[0] : out / grid[1];
    const blocks =
      structure === 'diagonal' ? [block] : Array.from({ length: beside }, (_, one) => one);
    const firstRow = block * this.blockRows;
    const parts = blocks.map((one) => {
      const factors = transposed ? this.blockFactors(one, block) : this.blockFactors(block, one);
      return { column: one * width, ...this.part(factors, rank, width, firstRow) };
    });
    if (hybridRank === 0) return parts;
    const columns = transposed ? features : out;
    return [...parts, { column: 0, ...this.part(this.generalFactors(), hybridRank, columns, 0) }];
  }

  private part({ a, b }: { a: Matrix; b: Matrix }, rank: number, width: number, firstRow: number) {
    const [left, right] = this.transposed ? [transposedOf(b), transposedOf(a)] : [a, b];
    return { width, rank, firstRow, left, right: tiled(rank, width, right) };
  }

  /** A[n, j] and B[n, j] */
  private blockFactors(n: number, j: number): { a: Matrix; b: Matrix } {
    const { structure, grid, blockRank: r, in: features, out } = this.structure;
    const { a, b } = this.factors;
    const isDiagonal = structure === 'diagonal';
    const [height, width] = [features / grid[0], out / grid[1]];
    const widthOfA = isDiagonal ? r : grid[1] * r;
    const fromA = n * height * widthOfA + (isDiagonal ? 0 : j * r);
    const fromB = (isDiagonal ? n : j * grid[0] + n) * r * width;
    return {
      a: (y, i) => a[fromA + y * widthOfA + i]!,
      b: (i, x) => b[fromB + i * width + x]!,
    };
  }

  private generalFactors(): { a: Matrix; b: Matrix } {
    const { hybridRank, out } = this.structure;
    const { generalA, generalB } = this.factors;
    return {
      a: (y, i) => generalA![y * hybridRank + i]!,
      b: (i, x) => generalB![i * out + x]!,
    };
  }
}

function transposedOf(matrix: Matrix): Matrix {
  return (row, column) => matrix(column, row);
}
