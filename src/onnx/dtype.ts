/**
 * The element types of ONNX tensors, and conversions between their raw bytes and numbers.
 *
 * Raw bytes are little-endian in every format read here and typed arrays have the byte order of the
 * host, so big-endian hosts are not supported: importing this module there throws.
 */
import { Float16Array } from '@petamoriken/float16';
import { OnnxLoraError } from '../errors.js';

if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) {
  throw new OnnxLoraError('unsupported', 'big-endian hosts are not supported');
}

/**
 * `TensorProto.DataType` numbers with a name and the width of one element. A string element has no
 * fixed width, which is the meaning of 0 bits.
 */
export const dataTypes = {
  1: { name: 'float32', bits: 32 },
  2: { name: 'uint8', bits: 8 },
  3: { name: 'int8', bits: 8 },
  4: { name: 'uint16', bits: 16 },
  5: { name: 'int16', bits: 16 },
  6: { name: 'int32', bits: 32 },
  7: { name: 'int64', bits: 64 },
  8: { name: 'string', bits: 0 },
  9: { name: 'bool', bits: 8 },
  10: { name: 'float16', bits: 16 },
  11: { name: 'float64', bits: 64 },
  12: { name: 'uint32', bits: 32 },
  13: { name: 'uint64', bits: 64 },
  14: { name: 'complex64', bits: 64 },
  15: { name: 'complex128', bits: 128 },
  16: { name: 'bfloat16', bits: 16 },
  17: { name: 'float8e4m3fn', bits: 8 },
  18: { name: 'float8e4m3fnuz', bits: 8 },
  19: { name: 'float8e5m2', bits: 8 },
  20: { name: 'float8e5m2fnuz', bits: 8 },
  21: { name: 'uint4', bits: 4 },
  22: { name: 'int4', bits: 4 },
  23: { name: 'float4e2m1', bits: 4 },
  24: { name: 'float8e8m0', bits: 8 },
  25: { name: 'uint2', bits: 2 },
  26: { name: 'int2', bits: 2 },
} as const;

/** The number of an ONNX data type, as `TensorProto.DataType` has it. */
export type DataTypeNumber = keyof typeof dataTypes;
/** The name of an ONNX data type, in lower case. */
export type DataTypeName = (typeof dataTypes)[DataTypeNumber]['name'];

/** The types `toFloat32`, `toFloat64`, `fromFloat32` and `fromFloat64` convert. */
export type FloatName = 'float32' | 'float64' | 'float16' | 'bfloat16';

/** Result of `toIntegers`: as wide as the type, a byte per element for narrower ones. */
export type IntegerArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

const byName = new Map<string, { number: DataTypeNumber; bits: number }>(
  Object.entries(dataTypes).map(([number, { name, bits }]) => [
    name,
    { number: Number(number) as DataTypeNumber, bits },
  ]),
);

const convertible = new Set<string>([
  'float32',
  'float64',
  'float16',
  'bfloat16',
] satisfies FloatName[]);

function unsupported(message: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('unsupported', message, { hint });
}

/** The name of an ONNX `TensorProto.DataType` number; undefined if it is not a known type. */
export function findDataType(number: number): DataTypeName | undefined {
  return (dataTypes as Record<number, { name: DataTypeName }>)[number]?.name;
}

/**
 * As {@link findDataType}, for where the type must be known.
 * @throws OnnxLoraError `unsupported` for a number that is not a known type (0 is UNDEFINED).
 */
export function dataTypeName(number: number): DataTypeName {
  const name = findDataType(number);
  if (!name) throw unsupported(`tensor data type ${number} is not one of ONNX's 1 to 26`);
  return name;
}

/**
 * The ONNX `TensorProto.DataType` number of a name.
 * @throws OnnxLoraError `unsupported` for an unknown name.
 */
export function dataTypeNumber(name: DataTypeName): DataTypeNumber {
  return lookUp(name).number;
}

/**
 * Bytes `count` elements take as raw data: types narrower than a byte are packed, the last byte
 * padded. The result is not limited to safe integers; check it where `count` is untrusted.
 * @throws OnnxLoraError `unsupported` for `string`, which has no raw form.
 */
export function byteLength(dtype: DataTypeName, count: number): number {
  const { bits } = lookUp(dtype);
  if (bits === 0) throw unsupported(`${dtype} tensors have no raw bytes`);
  return bits < 8 ? Math.ceil(count / (8 / bits)) : count * (bits / 8);
}

/** Whether elements are real floating-point numbers of any width, including 8 and 4 bits. */
export function isFloating(dtype: DataTypeName): boolean {
  return dtype.startsWith('float') || dtype.startsWith('bfloat');
}

/** Whether the float conversions of this module read and write the type. */
export function isConvertible(dtype: DataTypeName): dtype is FloatName {
  return convertible.has(dtype);
}

/**
 * Raw little-endian bytes of `count` elements as doubles, which is exact for every type supported.
 * float64 bytes that are aligned are returned as a view, not a copy.
 * @throws OnnxLoraError `unsupported` for a type that is not a {@link FloatName};
 * `invalid-argument` if `bytes` is not exactly as long as `count` elements.
 */
export function toFloat64(dtype: DataTypeName, bytes: Uint8Array, count: number): Float64Array {
  if (dtype !== 'float64') return new Float64Array(toFloat32(dtype, bytes, count));
  checkLength(dtype, bytes, count);
  return viewOrCopy(Float64Array, bytes, count);
}

/**
 * Raw little-endian bytes of `count` elements as floats. Exact, except that float64 is rounded to
 * the nearest float and overflows to infinity. float32 bytes that are aligned are returned as a
 * view, not a copy.
 * @throws OnnxLoraError `unsupported` for a type that is not a {@link FloatName};
 * `invalid-argument` if `bytes` is not exactly as long as `count` elements.
 */
export function toFloat32(dtype: DataTypeName, bytes: Uint8Array, count: number): Float32Array {
  if (!isConvertible(dtype)) throw notFloat(dtype);
  checkLength(dtype, bytes, count);
  switch (dtype) {
    case 'float32':
      return viewOrCopy(Float32Array, bytes, count);
    case 'float64':
      return new Float32Array(viewOrCopy(Float64Array, bytes, count));
    case 'float16':
      return widenFloat16(viewOrCopy(Uint16Array, bytes, count));
    case 'bfloat16':
      return widenBfloat16(viewOrCopy(Uint16Array, bytes, count));
  }
}

/**
 * Doubles as raw little-endian bytes of `dtype`, each rounded once to the nearest value, ties to
 * even; what is too large becomes infinity. For float64 the result is a view of `values`.
 * @throws OnnxLoraError `unsupported` for a type that is not a {@link FloatName}.
 */
export function fromFloat64(dtype: DataTypeName, values: Float64Array): Uint8Array {
  if (!isConvertible(dtype)) throw notFloat(dtype);
  switch (dtype) {
    case 'float64':
      return bytesOf(values);
    case 'float32':
      return bytesOf(new Float32Array(values));
    case 'float16':
      return float16Bytes(values);
    case 'bfloat16':
      return bytesOf(narrowToBfloat16(roundToOdd(values)));
  }
}

/**
 * Floats as raw little-endian bytes of `dtype`, rounded to the nearest value, ties to even; what is
 * too large becomes infinity. For float32 the result is a view of `values`.
 * @throws OnnxLoraError `unsupported` for a type that is not a {@link FloatName}.
 */
export function fromFloat32(dtype: DataTypeName, values: Float32Array): Uint8Array {
  if (!isConvertible(dtype)) throw notFloat(dtype);
  switch (dtype) {
    case 'float64':
      return bytesOf(new Float64Array(values));
    case 'float32':
      return bytesOf(values);
    case 'float16':
      return float16Bytes(values);
    case 'bfloat16':
      return bytesOf(narrowToBfloat16(bitsOf(values)));
  }
}

/**
 * Whole numbers as raw little-endian bytes of an integer type or bool. What a Number has rounded up to
 * 2^63 was the greatest int64, which means "to the end".
 * @throws OnnxLoraError `invalid-argument` for what the type does not hold, `unsupported` for a type
 * that is not one of them
 */
export function fromIntegers(
  dtype: DataTypeName,
  values: readonly (number | bigint)[],
): Uint8Array {
  const range = integerRange(dtype);
  if (!range) throw unsupported(`${dtype} elements are not integers of whole bytes`);
  const whole = values.map((value) => wholeNumber(dtype, range, value));
  if (dtype === 'int64') return bytesOf(BigInt64Array.from(whole));
  if (dtype === 'uint64') return bytesOf(BigUint64Array.from(whole));
  const { array } = smallIntegers[dtype as keyof typeof smallIntegers];
  return bytesOf(new array(whole.map(Number)));
}

const smallIntegers = {
  bool: { bits: 1, signed: false, array: Uint8Array },
  int8: { bits: 8, signed: true, array: Int8Array },
  uint8: { bits: 8, signed: false, array: Uint8Array },
  int16: { bits: 16, signed: true, array: Int16Array },
  uint16: { bits: 16, signed: false, array: Uint16Array },
  int32: { bits: 32, signed: true, array: Int32Array },
  uint32: { bits: 32, signed: false, array: Uint32Array },
} as const;

interface IntegerRange {
  readonly min: bigint;
  readonly max: bigint;
}

function integerRange(dtype: DataTypeName): IntegerRange | undefined {
  const wide = { int64: { bits: 64, signed: true }, uint64: { bits: 64, signed: false } };
  const types: Readonly<Record<string, { bits: number; signed: boolean }>> = {
    ...smallIntegers,
    ...wide,
  };
  const type = Object.hasOwn(types, dtype) ? types[dtype] : undefined;
  if (!type) return undefined;
  const size = 1n << BigInt(type.bits);
  return type.signed ? { min: -size / 2n, max: size / 2n - 1n } : { min: 0n, max: size - 1n };
}

function wholeNumber(
  dtype: DataTypeName,
  { min, max }: IntegerRange,
  value: number | bigint,
): bigint {
  if (typeof value === 'bigint' || Number.isInteger(value)) {
    const whole = BigInt(value);
    if (whole >= min && whole <= max) return whole;
    if (typeof value === 'number' && value === 2 ** 63 && dtype === 'int64') return max;
  }
  throw new OnnxLoraError(
    'invalid-argument',
    `${value} is not a value of ${dtype}, expected a whole number from ${min} to ${max}`,
  );
}

/**
 * Raw little-endian bytes of `count` elements of an integer or bool type, in a typed array of the
 * type's own width and sign; bool is a `Uint8Array`, 4-bit and 2-bit types get a byte per element.
 * Aligned bytes of the types that are not packed are returned as a view, not a copy.
 * @throws OnnxLoraError `unsupported` for any other type; `invalid-argument` if `bytes` is not
 * exactly as long as `count` elements.
 */
export function toIntegers(
  dtype: 'int64' | 'uint64',
  bytes: Uint8Array,
  count: number,
): BigInt64Array | BigUint64Array;
export function toIntegers(
  dtype: Exclude<DataTypeName, 'int64' | 'uint64'>,
  bytes: Uint8Array,
  count: number,
): Exclude<IntegerArray, BigInt64Array | BigUint64Array>;
export function toIntegers(dtype: DataTypeName, bytes: Uint8Array, count: number): IntegerArray;
export function toIntegers(dtype: DataTypeName, bytes: Uint8Array, count: number): IntegerArray {
  const decode = integerDecoders[dtype];
  if (!decode) throw unsupported(`${dtype} elements are not integers`);
  checkLength(dtype, bytes, count);
  return decode(bytes, count);
}

type Decoder = (bytes: Uint8Array, count: number) => IntegerArray;

const integerDecoders: Partial<Record<DataTypeName, Decoder>> = {
  bool: (bytes, count) => viewOrCopy(Uint8Array, bytes, count),
  int8: (bytes, count) => viewOrCopy(Int8Array, bytes, count),
  uint8: (bytes, count) => viewOrCopy(Uint8Array, bytes, count),
  int16: (bytes, count) => viewOrCopy(Int16Array, bytes, count),
  uint16: (bytes, count) => viewOrCopy(Uint16Array, bytes, count),
  int32: (bytes, count) => viewOrCopy(Int32Array, bytes, count),
  uint32: (bytes, count) => viewOrCopy(Uint32Array, bytes, count),
  int64: (bytes, count) => viewOrCopy(BigInt64Array, bytes, count),
  uint64: (bytes, count) => viewOrCopy(BigUint64Array, bytes, count),
  int4: (bytes, count) => unpackSigned(bytes, 4, count),
  int2: (bytes, count) => unpackSigned(bytes, 2, count),
  uint4: (bytes, count) => unpackUnsigned(bytes, 4, count),
  uint2: (bytes, count) => unpackUnsigned(bytes, 2, count),
};

function lookUp(name: DataTypeName): { number: DataTypeNumber; bits: number } {
  const type = byName.get(name);
  if (!type) throw unsupported(`tensor data type ${JSON.stringify(name)} is unknown`);
  return type;
}

function notFloat(dtype: DataTypeName): OnnxLoraError {
  const expected = 'float32, float64, float16 and bfloat16';
  return unsupported(`${dtype} elements cannot be converted: only ${expected} can`);
}

function checkLength(dtype: DataTypeName, bytes: Uint8Array, count: number): void {
  const expected = byteLength(dtype, count);
  if (bytes.length === expected && Number.isSafeInteger(count)) return;
  const message = `${count} ${dtype} elements take ${expected} bytes, found ${bytes.length}`;
  throw new OnnxLoraError('invalid-argument', message);
}

interface ViewConstructor<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T;
}

function viewOrCopy<T>(View: ViewConstructor<T>, bytes: Uint8Array, count: number): T {
  const aligned = bytes.byteOffset % View.BYTES_PER_ELEMENT === 0;
  // Not `slice`, which is a view again when the bytes are a Buffer.
  const source = aligned ? bytes : new Uint8Array(bytes);
  return new View(source.buffer, source.byteOffset, count);
}

function bytesOf(values: ArrayBufferView): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

let float16Table: Float32Array | undefined;

/** All 65536 values: a look-up is many times faster than the library's arithmetic per element. */
function float16Values(): Float32Array {
  const halves = Uint16Array.from({ length: 0x10000 }, (_, half) => half);
  return Float32Array.from(new Float16Array(halves.buffer));
}

function widenFloat16(halves: Uint16Array): Float32Array {
  float16Table ??= float16Values();
  const table = float16Table;
  const result = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) result[i] = table[halves[i] as number] as number;
  return result;
}

function widenBfloat16(halves: Uint16Array): Float32Array {
  const result = new Float32Array(halves.length);
  const bits = bitsOf(result);
  for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] as number) << 16;
  return result;
}

function float16Bytes(values: Float64Array | Float32Array): Uint8Array {
  return new Uint8Array(new Float16Array(values).buffer);
}

/**
 * Doubles as float32 bits, the inexact ones rounded to the neighbour with an odd last bit.
 *
 * Rounding to nearest twice is wrong where the first rounding lands on a tie of the second. An odd
 * last bit is never on such a tie and stays on the right side of it, so rounding the result to
 * nearest again gives what rounding the double once gives. It takes two bits more than the
 * final type has; float32 has sixteen more than bfloat16.
 */
function roundToOdd(values: Float64Array): Uint32Array {
  const nearest = new Float32Array(values);
  const bits = bitsOf(nearest);
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    const float = nearest[i] as number;
    if (value === float || ((bits[i] as number) & 1) === 1 || Number.isNaN(value)) continue;
    bits[i] = (bits[i] as number) + (Math.abs(value) > Math.abs(float) ? 1 : -1);
  }
  return bits;
}

/**
 * Adding half a unit less one, plus the last bit kept, carries exactly when nearest-even rounds up,
 * into the exponent and up to infinity where it must. NaN would carry to infinity or zero.
 */
function narrowToBfloat16(bits: Uint32Array): Uint16Array {
  const result = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const float = bits[i] as number;
    const notNumber = (float & 0x7fffffff) > 0x7f800000;
    result[i] = notNumber ? (float >>> 16) | 0x40 : (float + 0x7fff + ((float >>> 16) & 1)) >>> 16;
  }
  return result;
}

/** ONNX packs the first element in the lowest bits. */
function unpackUnsigned(bytes: Uint8Array, bits: 2 | 4, count: number): Uint8Array {
  const result = new Uint8Array(count);
  const perByte = 8 / bits;
  const mask = (1 << bits) - 1;
  for (let i = 0; i < count; i++) {
    const byte = bytes[Math.floor(i / perByte)] as number;
    result[i] = (byte >>> ((i % perByte) * bits)) & mask;
  }
  return result;
}

function unpackSigned(bytes: Uint8Array, bits: 2 | 4, count: number): Int8Array {
  const elements = unpackUnsigned(bytes, bits, count);
  const unused = 32 - bits;
  const result = new Int8Array(elements.buffer);
  for (let i = 0; i < count; i++) result[i] = ((elements[i] as number) << unused) >> unused;
  return result;
}
