/** Tensors that go into and come out of a session. */

import { OnnxLoraError } from '../errors.js';
import {
  type DataTypeName,
  fromFloat64,
  type IntegerArray,
  isConvertible,
  toFloat64,
} from '../onnx/dtype.js';
import { elementCount } from '../onnx/model.js';

/** The arrays that ONNX Runtime takes and gives. */
export type TensorArray = IntegerArray | Float32Array | Float64Array;

/** A tensor in row-major order. float16 elements are their bits in a Uint16Array, bools are bytes. */
export interface TensorValue {
  /** Type of the elements. */
  readonly dtype: DataTypeName;
  /** Its shape. */
  readonly dims: readonly number[];
  /** Its numbers, row by row. */
  readonly data: TensorArray;
}

/** The inputs of one run, by name. */
export type Feeds = ReadonlyMap<string, TensorValue>;

const arrays = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
} as const;

type FedType = keyof typeof arrays;

/** Whether tensors of the type can be given to a session: the binding knows no others. */
export function isFeedable(dtype: DataTypeName | undefined): dtype is FedType {
  return dtype !== undefined && Object.hasOwn(arrays, dtype);
}

/**
 * Numbers as a tensor; floats are rounded to the type, integers have to fit it.
 * @throws OnnxLoraError `unsupported` for a type that sessions do not take, `invalid-argument` for a
 * number that an integer type does not hold
 * @example
 * ```ts
 * import { tensorFromNumbers } from 'onnx-lora';
 *
 * const { data } = tensorFromNumbers('float16', [2], Float64Array.of(1, 0.5));
 * console.log(data); // the bits, in a Uint16Array
 * ```
 */
export function tensorFromNumbers(
  dtype: DataTypeName,
  dims: readonly number[],
  values: Float64Array,
): TensorValue {
  if (isConvertible(dtype)) return tensorFromBytes(dtype, dims, fromFloat64(dtype, values));
  const data = integersOf(dtype, values);
  const numbers = tensorToFloat64({ dtype, dims, data });
  const at = values.findIndex((value, i) => value !== numbers[i]);
  if (at < 0) return { dtype, dims, data };
  const message = `${values[at]} is not a value of ${dtype}, expected a whole number that it holds`;
  throw new OnnxLoraError('invalid-argument', message);
}

/** Wraps what the type does not hold, and drops fractions. */
function integersOf(dtype: DataTypeName, values: Float64Array): TensorArray {
  const whole = (value: number) => (Number.isFinite(value) ? BigInt(Math.trunc(value)) : 0n);
  if (dtype === 'int64') return BigInt64Array.from(values, whole);
  if (dtype === 'uint64') return BigUint64Array.from(values, whole);
  const data = new (arrayOf(dtype))(values.length) as Int32Array;
  data.set(values);
  return data;
}

/**
 * Raw little-endian bytes as a tensor; they are copied.
 * @throws OnnxLoraError `unsupported` for a type that sessions do not take; `invalid-argument` if
 * the bytes are not exactly those of `dims`
 */
export function tensorFromBytes(
  dtype: DataTypeName,
  dims: readonly number[],
  bytes: Uint8Array,
): TensorValue {
  const View = arrayOf(dtype);
  const expected = elementCount(dims) * View.BYTES_PER_ELEMENT;
  if (bytes.length !== expected) {
    const message = `a ${dtype} tensor of shape [${dims.join(', ')}] takes ${expected} bytes, found ${bytes.length}`;
    throw new OnnxLoraError('invalid-argument', message);
  }
  return { dtype, dims, data: new View(new Uint8Array(bytes).buffer) };
}

/** The elements as doubles: exact, except for integers beyond 2^53. May be a view. */
export function tensorToFloat64({ dtype, data }: TensorValue): Float64Array {
  if (data instanceof Float64Array) return data;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    return doublesOf(data);
  }
  if (!isConvertible(dtype)) return new Float64Array(data);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return toFloat64(dtype, bytes, data.length);
}

/** By halves of 32 bits: a bigint for each element takes ten times as long. */
function doublesOf(data: BigInt64Array | BigUint64Array): Float64Array {
  const words = new Uint32Array(data.buffer, data.byteOffset, 2 * data.length);
  const signed = data instanceof BigInt64Array;
  const result = new Float64Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const high = words[2 * i + 1]!;
    result[i] = (signed ? high | 0 : high) * 2 ** 32 + words[2 * i]!;
  }
  return result;
}

function arrayOf(dtype: DataTypeName): (typeof arrays)[FedType] {
  if (isFeedable(dtype)) return arrays[dtype];
  throw new OnnxLoraError('unsupported', `ONNX Runtime's Node binding takes no ${dtype} tensors`);
}
