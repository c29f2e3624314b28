import type { Factors } from '../../analysis/norms.js';
import type { Structure } from '../structure.js';

/** A product of two matrices, row-major: `left [rows, inner] · right [inner, columns]`. */
export interface Product {
  readonly left: Float64Array;
  readonly right: Float64Array;
  readonly inner: number;
}

/**
 * ΔW of one adapter as the file stores the weight, [in, out] or [out, in], a run of rows at a time.
 * Within one row of blocks ΔW is a plain product: the blocks' left factors side by side, times
 * their right factors on a block diagonal.
 */
export class RowFactors {
  readonly rows: number;
  readonly columns: number;
  /** ΔW is a plain product only within runs of this many rows. */
  readonly blockRows: number;
  private cached: { block: number; right: Float64Array } | undefined;
  private readonly inner: number;

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
    this.rows = transposed ? structure.out : structure.in;
    this.columns = transposed ? structure.in : structure.out;
    this.blockRows = transposed ? structure.out / kOut : structure.in / kIn;
    this.inner = this.gridInner() + structure.hybridRank;
  }

  /** Rows `start` to `end` of ΔW, which must lie in one row of blocks. */
  product(start: number, end: number): Product {
    const block = Math.floor(start / this.blockRows);
    const left = new Float64Array((end - start) * this.inner);
    for (let row = start; row < end; row++) this.fillLeft(left, row - start, row, block);
    if (this.cached?.block !== block) this.cached = { block, right: this.right(block) };
    return { left, right: this.cached.right, inner: this.inner };
  }

  private gridInner(): number {
    const { structure, grid, blockRank } = this.structure;
    if (structure === 'diagonal') return blockRank;
    return (this.transposed ? grid[0] : grid[1]) * blockRank;
  }

  private fillLeft(left: Float64Array, at: number, row: number, block: number): void {
    const { hybridRank, out, grid } = this.structure;
    const gridInner = this.gridInner();
    const within = row - block * this.blockRows;
    const base = at * this.inner;
    if (this.transposed) {
      const width = out / grid[1];
      const b = block * gridInner * width + within;
      for (let i = 0; i < gridInner; i++)
        left[base + i] = this.scale * this.factors.b[b + i * width]!;
    } else {
      const a = row * gridInner;
      for (let i = 0; i < gridInner; i++) left[base + i] = this.scale * this.factors.a[a + i]!;
    }
    const { generalA, generalB } = this.factors;
    for (let i = 0; i < hybridRank; i++) {
      const value = this.transposed ? generalB![i * out + row]! : generalA![row * hybridRank + i]!;
      left[base + gridInner + i] = this.scale * value;
    }
  }

  private right(block: number): Float64Array {
    const { columns, inner } = this;
    const right = new Float64Array(inner * columns);
    if (this.transposed) this.fillRightFromA(right, block);
    else this.fillRightFromB(right, block);
    const { generalA, generalB } = this.factors;
    const { hybridRank } = this.structure;
    const base = this.gridInner() * columns;
    for (let i = 0; i < hybridRank; i++) {
      for (let column = 0; column < columns; column++) {
        right[base + i * columns + column] = this.transposed
          ? generalA![column * hybridRank + i]!
          : generalB![i * columns + column]!;
      }
    }
    return right;
  }

  /** For input block n: B[n, j] in row block j and column block j. */
  private fillRightFromB(right: Float64Array, n: number): void {
    const { structure, grid, blockRank: r, out } = this.structure;
    const [kIn, kOut] = grid;
    const width = out / kOut;
    if (structure === 'diagonal') {
      for (let i = 0; i < r; i++) {
        const from = (n * r + i) * width;
        right.set(this.factors.b.subarray(from, from + width), i * out + n * width);
      }
      return;
    }
    for (let j = 0; j < kOut; j++) {
      for (let i = 0; i < r; i++) {
        const from = (j * kIn * r + n * r + i) * width;
        right.set(this.factors.b.subarray(from, from + width), (j * r + i) * out + j * width);
      }
    }
  }

  /** For output block j: A[n, j]ᵀ in row block n and column block n. */
  private fillRightFromA(right: Float64Array, j: number): void {
    const { structure, grid, blockRank: r, in: columns } = this.structure;
    const [kIn, kOut] = grid;
    const width = columns / kIn;
    const stride = structure === 'diagonal' ? r : kOut * r;
    const blocks = structure === 'diagonal' ? [j] : Array.from({ length: kIn }, (_, n) => n);
    for (const n of blocks) {
      const row = structure === 'diagonal' ? 0 : n * r;
      const column = structure === 'diagonal' ? 0 : j * r;
      for (let i = 0; i < r; i++) {
        for (let x = 0; x < width; x++) {
          right[(row + i) * columns + n * width + x] =
            this.factors.a[(n * width + x) * stride + column + i]!;
        }
      }
    }
  }
}

/** Rows of the sum of several ΔW as one product: factors side by side, and below each other. */
export function sumOfProducts(
  products: readonly Product[],
  rows: number,
  columns: number,
): Product {
  if (products.length === 1) return products[0]!;
  const inner = products.reduce((sum, product) => sum + product.inner, 0);
  const left = new Float64Array(rows * inner);
  const right = new Float64Array(inner * columns);
  let at = 0;
  for (const product of products) {
    for (let row = 0; row < rows; row++) {
      const from = row * product.inner;
      left.set(product.left.subarray(from, from + product.inner), row * inner + at);
    }
    right.set(product.right, at * columns);
    at += product.inner;
  }
  return { left, right, inner };
}
