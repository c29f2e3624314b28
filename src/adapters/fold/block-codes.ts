/**
 * Integers for a matrix in blocks of its columns, as MatMulNBits reads them. All arithmetic is that of ONNX
 * Runtime's quantizer, in float32, so that the bytes are the same.
 */
import { byteLength, type FloatName, fromFloat64, toFloat64 } from '../../onnx/dtype.js';

/** A way to store a matrix in integers. */
export interface BlockFormat {
  readonly bits: 4 | 8;
  /** Rows that share a scale. */
  readonly blockSize: number;
  /** Without zero points: 0 is the integer in the middle. */
  readonly symmetric: boolean;
}

/** The tensors of a matrix in integers. */
export interface BlockCodes {
  /** [columns, blocks, bytes of a block] */
  readonly codes: Uint8Array;
  /** [columns, blocks] in the type of the matrix. */
  readonly scales: Uint8Array;
  /** [columns, bytes of a column's zero points] */
  readonly zeros: Uint8Array | undefined;
}

/** A matrix W [rows, columns]. */
export interface Matrix {
  readonly dtype: FloatName;
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** The integers of a matrix, with scales that cut off nothing but, without zero points, the end that is near. */
export function quantizeBlocks(matrix: Matrix, format: BlockFormat): BlockCodes {
  const { rows, columns } = matrix;
  const { bits, blockSize, symmetric } = format;
  const count = Math.ceil(rows / blockSize);
  const codes = new Uint8Array((columns * count * blockSize * bits) / 8);
  const scales = new Float64Array(columns * count);
  const width = Math.ceil((count * bits) / 8);
  const zeros = symmetric ? undefined : new Uint8Array(columns * width);
  const columnBytes = (count * blockSize * bits) / 8;
  for (let column = 0; column < columns; column++) {
    // Zero points and codes of 4 bits fill whole bytes, where they are odd with what the quantizer leaves there.
    if (zeros && (count * bits) % 8 > 0) put(zeros.subarray(column * width), count, bits, 8);
    for (let block = 0; block < count; block++) {
      const values = blockOf(matrix, column, block, blockSize);
      const { scale, zero } = scaled(values, format, matrix.dtype);
      scales[column * count + block] = scale;
      if (zeros) put(zeros.subarray(column * width), block, bits, zero);
      const at = ((column * count + block) * blockSize * bits) / 8;
      pack(codes.subarray(at), values, { scale, zero, bits });
    }
    const lying = codes.subarray(column * columnBytes);
    if ((rows * bits) % 8 > 0) put(lying, rows, bits, leftAfter(lying, rows, 2 * blockSize));
  }
  return { codes, scales: fromFloat64(matrix.dtype, scales), zeros };
}

/** The code two places before the end, unless that is in another pair of blocks. */
function leftAfter(bytes: Uint8Array, rows: number, pair: number): number {
  return (rows - 1) % pair === 0 ? 0 : bytes[(rows - 3) >> 1]! >> 4;
}

function blockOf({ rows, columns, values }: Matrix, column: number, block: number, size: number) {
  const end = Math.min(rows, (block + 1) * size);
  const start = block * size;
  return Float64Array.from(
    { length: end - start },
    (_, i) => values[(start + i) * columns + column]!,
  );
}

const { fround } = Math;

/** The scale as it is stored, and the integer of 0. */
function scaled(values: Float64Array, { bits, symmetric }: BlockFormat, dtype: FloatName) {
  const [middle, last] = [2 ** (bits - 1), 2 ** bits - 1];
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  const stored = (scale: number) =>
    toFloat64(dtype, fromFloat64(dtype, Float64Array.of(scale)), 1)[0]!;
  if (symmetric) {
    const farthest = Math.abs(greatest) > Math.abs(least) ? greatest : least;
    // The integers reach one farther below the middle than above it.
    return { scale: stored(fround(-farthest / middle)), zero: middle };
  }
  const from = Math.min(least, 0);
  const scale = fround(fround(Math.max(greatest, 0) - from) / last);
  const zero = scale === 0 ? from : fround(-fround(from / scale));
  return { scale: stored(scale), zero: rounded(Math.min(last, Math.max(0, zero))) };
}

function pack(
  bytes: Uint8Array,
  values: Float64Array,
  { scale, zero, bits }: { scale: number; zero: number; bits: number },
): void {
  const inverse = scale === 0 ? 0 : fround(1 / scale);
  for (const [i, value] of values.entries()) {
    const code = rounded(fround(fround(value * inverse) + zero));
    put(bytes, i, bits, Math.min(2 ** bits - 1, Math.max(0, code)));
  }
}

/** Halves go away from 0. */
function rounded(value: number): number {
  return Math.sign(value) * Math.floor(Math.abs(value) + 0.5);
}

function put(bytes: Uint8Array, index: number, bits: number, code: number): void {
  const bit = index * bits;
  bytes[bit >> 3]! |= code << (bit & 7);
}

/** Bytes of the tensors of a matrix in integers. */
export function blockSizes(
  { dtype, rows, columns }: Pick<Matrix, 'dtype' | 'rows' | 'columns'>,
  { bits, blockSize }: BlockFormat,
): Record<keyof BlockCodes, number> {
  const count = Math.ceil(rows / blockSize);
  return {
    codes: (columns * count * blockSize * bits) / 8,
    scales: byteLength(dtype, columns * count),
    zeros: columns * Math.ceil((count * bits) / 8),
  };
}

/**
 * The greatest distance of numbers from those that they were rounded from, in steps of their block: of its
 * farthest number over the integers on that side, or of its range over all integers. At most 1.
 */
export function greatestStep(matrix: Matrix, found: Float64Array, format: BlockFormat): number {
  const { rows, columns, values } = matrix;
  const { bits, blockSize, symmetric } = format;
  let worst = 0;
  for (let column = 0; column < columns; column++) {
    for (let start = 0; start < rows; start += blockSize) {
      const block = blockOf(matrix, column, start / blockSize, blockSize);
      const [least, greatest] = [Math.min(0, ...block), Math.max(0, ...block)];
      const step = symmetric
        ? Math.max(-least, greatest) / 2 ** (bits - 1)
        : (greatest - least) / (2 ** bits - 1);
      for (let row = start; row < start + block.length; row++) {
        const i = row * columns + column;
        const error = Math.abs(found[i]! - values[i]!);
        const steps = error === 0 ? 0 : error / (step + UNIT * Math.abs(values[i]!));
        // Not `>`: what is not a number is not near to anything.
        if (!(steps <= worst)) worst = steps;
      }
    }
  }
  return worst;
}

/** Numbers and scales may be float16. */
const UNIT = 2 ** -9;
