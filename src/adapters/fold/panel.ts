import { type Floats, sumOfSquares } from '../../linalg/products.js';
import { type FloatName, fromFloat64, toFloat64 } from '../../onnx/dtype.js';
import { Kernel } from './kernel.js';

/** The term of one block, or of the general part of a hybrid, in some rows of a weight: `left · right`. */
export interface Strip {
  /** The first column that it adds to, and how many. */
  readonly column: number;
  readonly width: number;
  readonly rank: number;
  /** [rows, rank] */
  readonly left: Float64Array;
  /** [rank, width] in the order of {@link tiled}. */
  readonly right: Float64Array;
}

/** Rows after a fold. */
export interface RoundedRows {
  /** In the weight's own type, rounded once; valid until the next rows. */
  readonly bytes: Uint8Array;
  /** Sums of squares of what was added, and of what was there. */
  readonly deltaSquares: number;
  readonly weightSquares: number;
}

/** The kernel takes so many rows, and so many columns, at a time. */
export const TILE = 4;

const DOUBLE = Float64Array.BYTES_PER_ELEMENT;

/** A matrix in the order that the kernel reads it: see `add` in kernel.wat. */
export function tiled(
  rank: number,
  width: number,
  value: (i: number, x: number) => number,
): Float64Array {
  const values = new Float64Array(rank * width);
  const tiles = width - (width % TILE);
  let at = 0;
  for (let tile = 0; tile < tiles; tile += TILE) {
    for (let i = 0; i < rank; i++) {
      for (let x = 0; x < TILE; x++) values[at++] = value(i, tile + x);
    }
  }
  for (let x = tiles; x < width; x++) {
    for (let i = 0; i < rank; i++) values[at++] = value(i, x);
  }
  return values;
}

/**
 * Some rows of a weight in the kernel's memory, where the products of adapters are added to them. The
 * memory holds the rows as they are stored (where that is float32), the rows in float64, a left factor,
 * and the right factors of all strips.
 */
export class Panel {
  private readonly kernel = Kernel.take();
  private readonly sumsAt: number;
  private readonly leftAt: number;
  private readonly paddedRows: number;
  private rows = 0;
  private weightSquares = 0;
  private loaded: Floats | undefined;
  private rights: readonly Float64Array[] = [];

  constructor(
    private readonly dtype: FloatName,
    private readonly columns: number,
    maxRows: number,
  ) {
    this.paddedRows = Math.ceil(maxRows / TILE) * TILE;
    const count = this.paddedRows * columns;
    this.sumsAt = dtype === 'float32' ? count * Float32Array.BYTES_PER_ELEMENT : 0;
    this.leftAt = this.sumsAt + count * DOUBLE;
    this.kernel.reserve(this.leftAt);
  }

  /** The rows as they were loaded; valid until they are rounded. */
  get before(): Floats {
    return this.loaded ?? this.kernel.floats(0, this.count);
  }

  /** The rows with what was added so far; valid until the next call. */
  get after(): Float64Array {
    return this.kernel.doubles(this.sumsAt, this.count);
  }

  private get count(): number {
    return this.rows * this.columns;
  }

  /** Takes rows in, instead of those that were there. */
  load(bytes: Uint8Array, rows: number): void {
    this.rows = rows;
    if (this.dtype === 'float32') {
      this.kernel.bytes(0, bytes.length).set(bytes);
      this.weightSquares = this.kernel.functions.widen(0, this.sumsAt, this.count);
      return;
    }
    this.loaded = toFloat64(this.dtype, bytes, this.count);
    this.weightSquares = sumOfSquares(this.loaded);
    this.after.set(this.loaded);
  }

  add(strips: readonly Strip[]): void {
    if (strips.length === 0) return;
    const places = this.place(strips);
    for (const [i, { column, width, rank, left }] of strips.entries()) {
      this.kernel.doubles(this.leftAt, left.length).set(left);
      this.kernel.functions.add(
        this.sumsAt + column * DOUBLE,
        this.columns * DOUBLE,
        Math.ceil(this.rows / TILE) * TILE,
        width,
        this.leftAt,
        rank,
        places[i]!,
      );
    }
  }

  /** The place of the right factors. They stay for as long as the rows are of the same blocks. */
  private place(strips: readonly Strip[]): number[] {
    const leftBytes = Math.max(...strips.map(({ rank }) => rank)) * this.paddedRows * DOUBLE;
    let end = this.leftAt + leftBytes;
    const places = strips.map(({ right }) => {
      const at = end;
      end += right.byteLength;
      return at;
    });
    const isPlaced = strips.every(({ right }, i) => right === this.rights[i]);
    if (isPlaced) return places;
    this.kernel.reserve(end);
    for (const [i, { right }] of strips.entries()) {
      this.kernel.doubles(places[i]!, right.length).set(right);
    }
    this.rights = strips.map(({ right }) => right);
    return places;
  }

  rounded(): RoundedRows {
    const { weightSquares } = this;
    if (this.dtype === 'float32') {
      const deltaSquares = this.kernel.functions.narrow(this.sumsAt, 0, this.count);
      const { buffer, byteOffset, byteLength } = this.kernel.floats(0, this.count);
      return { bytes: new Uint8Array(buffer, byteOffset, byteLength), deltaSquares, weightSquares };
    }
    const { before, after } = this;
    let deltaSquares = 0;
    for (let i = 0; i < after.length; i++) deltaSquares += (after[i]! - before[i]!) ** 2;
    return { bytes: fromFloat64(this.dtype, after), deltaSquares, weightSquares };
  }

  release(): void {
    this.kernel.giveBack();
  }
}
