/** Numbers that have to be finite in the type that they are stored in. */

import { OnnxLoraError } from '../../errors.js';
import type { Floats } from '../../linalg/products.js';
import type { ByteSource } from '../../onnx/byte-source.js';
import {
  byteLength,
  type DataTypeName,
  type FloatName,
  fromFloat64,
  isConvertible,
  toFloat64,
} from '../../onnx/dtype.js';
import { collect, type Piece } from '../../onnx/edit.js';

/** The least that rounds to infinity: half a step beyond the greatest number. */
const LIMITS: Readonly<Record<FloatName, number>> = {
  bfloat16: 2 ** 128 * (1 - 2 ** -9),
  float16: 65_520,
  float32: 2 ** 128 * (1 - 2 ** -25),
  float64: Number.POSITIVE_INFINITY,
};

/** Whether all of some numbers are certainly finite in a type, by a bound of the greatest. */
export function staysFinite(bound: number, dtype: FloatName): boolean {
  return bound < LIMITS[dtype];
}

/**
 * The bytes of numbers, each rounded once.
 * @param what holds the numbers, for the error
 * @throws OnnxLoraError `invalid-adapter` for one that is not finite in the type
 */
export function finiteBytes(dtype: FloatName, values: Float64Array, what: string): Uint8Array {
  const bad = values.findIndex((value) => !(Math.abs(value) < LIMITS[dtype]));
  if (bad >= 0) throw notFinite(what, values[bad]!, dtype);
  return fromFloat64(dtype, values);
}

/**
 * The bytes of numbers, each rounded once; those that are not finite before stay so.
 * @param what holds the numbers, for the error
 * @throws OnnxLoraError `invalid-adapter` for one that only rounding makes infinite
 */
export function bytesWithoutOverflow(
  dtype: FloatName,
  values: Float64Array,
  what: string,
): Uint8Array {
  const limit = LIMITS[dtype];
  const bad = values.find((value) => Number.isFinite(value) && !(Math.abs(value) < limit));
  if (bad !== undefined) throw notFinite(what, bad, dtype);
  return fromFloat64(dtype, values);
}

const CHUNK = 1 << 20;

/**
 * Checks numbers as they are stored.
 * @throws OnnxLoraError `invalid-adapter` for one that is not finite
 */
export function checkFinite(data: StoredBytes, dtype: FloatName, what: string): void {
  const isInMemory = data instanceof Uint8Array;
  const end = isInMemory ? data.length : data.end;
  for (let at = isInMemory ? 0 : data.start; at < end; at += CHUNK) {
    const stop = Math.min(end, at + CHUNK);
    const bytes = isInMemory ? data.subarray(at, stop) : data.source.read(at, stop);
    const numbers = toFloat64(dtype, bytes, bytes.length / byteLength(dtype, 1));
    const bad = numbers.find((value) => !Number.isFinite(value));
    if (bad !== undefined) throw notFinite(what, bad, dtype);
  }
}

/**
 * Numbers on their way from a model or a file into another file: stored ones are checked at once, others
 * when they are made. Tensors of integers go by.
 * @throws OnnxLoraError `invalid-adapter` for one that is not finite
 */
export function finitePiece(data: Piece, dtype: DataTypeName, what: string): Piece {
  if (!isConvertible(dtype)) return data;
  if (!('chunks' in data)) {
    checkFinite(data, dtype, what);
    return data;
  }
  const chunks = async function* () {
    const bytes = await collect([data]);
    checkFinite(bytes, dtype, what);
    yield bytes;
  };
  return { length: data.length, chunks };
}

type StoredBytes =
  | Uint8Array
  | { readonly source: ByteSource; readonly start: number; readonly end: number };

/** Sums of squares over the elements that were finite before. */
export interface FiniteSquares {
  readonly deltaSquares: number;
  readonly weightSquares: number;
}

/**
 * Checks that a fold makes no number infinite that was finite before.
 * @throws OnnxLoraError `invalid-adapter` naming the layer
 */
export function checkFold(
  label: string,
  dtype: FloatName,
  before: Floats,
  after: Float64Array,
): FiniteSquares {
  let [deltaSquares, weightSquares] = [0, 0];
  for (let i = 0; i < after.length; i++) {
    if (!Number.isFinite(before[i]!)) continue;
    if (!(Math.abs(after[i]!) < LIMITS[dtype])) {
      throw notFinite(...ofFold(label, after[i]!), dtype, label);
    }
    deltaSquares += (after[i]! - before[i]!) ** 2;
    weightSquares += before[i]! ** 2;
  }
  return { deltaSquares, weightSquares };
}

function ofFold(label: string, value: number): [what: string, value: number | string] {
  if (!Number.isFinite(value)) return [`${label}: its adapter`, 'NaN or infinite numbers'];
  return [`${label}: its weight with the adapter`, value];
}

function notFinite(
  what: string,
  value: number | string,
  dtype: FloatName,
  node?: string,
): OnnxLoraError {
  const isTooLarge = Number.isFinite(value);
  return new OnnxLoraError(
    'invalid-adapter',
    `${what} holds ${value}, ${isTooLarge ? `which is more than ${dtype} can hold` : 'expected finite numbers'}`,
    {
      node,
      hint: isTooLarge
        ? 'Are alpha, scale and learning rate what they should be? Nothing was written.'
        : 'The training run diverged, or the file is damaged. Nothing was written.',
    },
  );
}
