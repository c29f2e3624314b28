import { getFloat16 } from '@petamoriken/float16';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OnnxLoraError } from '../../src/errors.js';
import {
  byteLength,
  type DataTypeName,
  dataTypeName,
  dataTypeNumber,
  dataTypes,
  findDataType,
  fromFloat32,
  fromFloat64,
  isConvertible,
  isFloating,
  toFloat32,
  toFloat64,
  toIntegers,
} from '../../src/onnx/dtype.js';

const names = Object.values(dataTypes).map((type) => type.name);
const allHalves = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
const allHalfBytes = new Uint8Array(allHalves.buffer);

function errorOf(run: () => unknown): OnnxLoraError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(OnnxLoraError);
    return error as OnnxLoraError;
  }
  throw new Error('expected an error');
}

function halvesOf(bytes: Uint8Array): number[] {
  return [...new Uint16Array(bytes.slice().buffer)];
}

/** A copy that starts one byte after a multiple of eight. */
function misaligned(bytes: Uint8Array): Uint8Array {
  const result = new Uint8Array(bytes.length + 9).subarray(1, 1 + bytes.length);
  result.set(bytes);
  return result;
}

interface Format {
  fractionBits: number;
  /** Of the subnormal values, as a power of two. */
  lowestExponent: number;
  infinity: number;
}

const formats: Record<'float16' | 'bfloat16', Format> = {
  float16: { fractionBits: 10, lowestExponent: -24, infinity: 0x7c00 },
  bfloat16: { fractionBits: 7, lowestExponent: -133, infinity: 0x7f80 },
};

/** The value of non-negative bits; those of infinity give the power of two that would follow. */
function valueAt({ fractionBits, lowestExponent }: Format, bits: number): number {
  const exponent = bits >> fractionBits;
  const implicit = 2 ** fractionBits;
  const fraction = bits % implicit;
  if (exponent === 0) return fraction * 2 ** lowestExponent;
  return (implicit + fraction) * 2 ** (lowestExponent + exponent - 1);
}

/**
 * The reference for rounding, exact because every value and every tie is a double: search the two
 * values around the number and compare it with the tie between them.
 */
function nearestBits(format: Format, value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  let low = 0;
  let high = format.infinity;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (valueAt(format, middle) <= magnitude) low = middle;
    else high = middle;
  }
  const tie = (valueAt(format, low) + valueAt(format, high)) / 2;
  const up = magnitude > tie || (magnitude === tie && low % 2 === 1);
  return sign | (up ? high : low);
}

/** The doubles next to a double, where a rounding done twice goes wrong. */
function neighbours(value: number): number[] {
  const float = Float64Array.of(value);
  const bits = new BigInt64Array(float.buffer);
  const original = bits[0] as bigint;
  return [-1n, 0n, 1n].map((step) => {
    bits[0] = original + step;
    return float[0] as number;
  });
}

function tiesOf(values: number[]): number[] {
  const ties = values.slice(1).map((value, i) => (value + (values[i] as number)) / 2);
  return [...values, ...ties].filter((value) => value > 0).flatMap(neighbours);
}

/** From zero to the power of two that takes the place of infinity. */
function nonNegative(format: Format): number[] {
  return Array.from({ length: format.infinity + 1 }, (_, bits) => valueAt(format, bits));
}

describe('data types', () => {
  it('maps every ONNX number from 1 to 26 to a name and back', () => {
    expect(new Set(names).size).toBe(26);
    for (let number = 1; number <= 26; number++) {
      expect(dataTypeNumber(dataTypeName(number))).toBe(number);
    }
    expect(dataTypeName(1)).toBe('float32');
    expect(dataTypeName(16)).toBe('bfloat16');
    expect(dataTypeNumber('int4')).toBe(22);
  });

  it.each([0, 27, -1, 1.5, Number.NaN])('rejects the number %s', (number) => {
    expect(findDataType(number)).toBeUndefined();
    const error = errorOf(() => dataTypeName(number));
    expect(error.code).toBe('unsupported');
    expect(error.message).toContain(String(number));
  });

  it('rejects a name that only exists on Object.prototype', () => {
    expect(errorOf(() => dataTypeNumber('toString' as DataTypeName)).code).toBe('unsupported');
  });

  it('rounds packed types up to whole bytes', () => {
    expect(byteLength('int4', 3)).toBe(2);
    expect(byteLength('uint2', 5)).toBe(2);
    expect(byteLength('float4e2m1', 0)).toBe(0);
    expect(byteLength('bfloat16', 3)).toBe(6);
    expect(byteLength('complex128', 2)).toBe(32);
    expect(errorOf(() => byteLength('string', 1)).code).toBe('unsupported');
  });

  it('tells floating types from the others', () => {
    const floating = names.filter((name) => isFloating(name));
    expect(floating).toHaveLength(10);
    expect(floating).toContain('float4e2m1');
    expect(floating).not.toContain('complex64');
    expect(names.filter(isConvertible).sort()).toEqual([
      'bfloat16',
      'float16',
      'float32',
      'float64',
    ]);
  });
});

describe('widening', () => {
  it('reads all 65536 float16 values as the float16 library does', () => {
    const view = new DataView(allHalfBytes.buffer);
    const expected = Array.from(allHalves, (_, i) => getFloat16(view, i * 2, true));
    expect(Array.from(toFloat32('float16', allHalfBytes, 0x10000))).toEqual(expected);
  });

  it.each(['float16', 'bfloat16'] as const)('reads every %s value', (dtype) => {
    const format = formats[dtype];
    const finite = nonNegative(format).slice(0, -1);
    const values = toFloat64(dtype, allHalfBytes, 0x10000);
    const negative = values.subarray(0x8000);
    expect(Array.from(values.subarray(0, format.infinity))).toEqual(finite);
    expect(Array.from(negative.subarray(0, format.infinity))).toEqual(finite.map((v) => -v));
    expect(values[format.infinity]).toBe(Number.POSITIVE_INFINITY);
    expect(negative[format.infinity]).toBe(Number.NEGATIVE_INFINITY);
    expect(values.subarray(format.infinity + 1, 0x8000).every(Number.isNaN)).toBe(true);
    expect(negative.subarray(format.infinity + 1).every(Number.isNaN)).toBe(true);
  });

  it.each(['float16', 'bfloat16'] as const)('brings all %s values back unchanged', (dtype) => {
    const floats = toFloat32(dtype, allHalfBytes, 0x10000);
    const isNaNAt = (half: number) => Number.isNaN(floats[half]);
    for (const bytes of [
      fromFloat32(dtype, floats),
      fromFloat64(dtype, toFloat64(dtype, allHalfBytes, 0x10000)),
    ]) {
      const halves = halvesOf(bytes);
      expect(halves.filter((half, i) => half !== i && !isNaNAt(i))).toEqual([]);
      const values = toFloat32(dtype, bytes, 0x10000);
      expect(halves.filter((_, i) => isNaNAt(i) !== Number.isNaN(values[i]))).toEqual([]);
    }
  });

  it('reads any alignment alike', () => {
    const bytes = Uint8Array.from({ length: 64 }, (_, i) => (i * 37) & 0x3f);
    for (const dtype of ['float64', 'float32', 'float16', 'bfloat16'] as const) {
      const count = 64 / byteLength(dtype, 1);
      expect(toFloat64(dtype, misaligned(bytes), count)).toEqual(toFloat64(dtype, bytes, count));
      expect(toFloat32(dtype, misaligned(bytes), count)).toEqual(toFloat32(dtype, bytes, count));
      expect(toFloat32(dtype, Buffer.from(misaligned(bytes)), count)).toEqual(
        toFloat32(dtype, bytes, count),
      );
    }
  });

  it('copies aligned float32 only when it must', () => {
    const bytes = new Uint8Array(8);
    expect(toFloat32('float32', bytes, 2).buffer).toBe(bytes.buffer);
    const odd = Buffer.from(new ArrayBuffer(9), 1, 8);
    expect(toFloat32('float32', odd, 2).buffer).not.toBe(odd.buffer);
  });
});

describe('narrowing', () => {
  const narrow = ['float16', 'bfloat16'] as const;

  it.each(narrow)('rounds doubles at and beside every %s tie to nearest even', (dtype) => {
    const format = formats[dtype];
    const values = tiesOf(nonNegative(format));
    const found = halvesOf(fromFloat64(dtype, Float64Array.from(values)));
    expect(found).toEqual(values.map((value) => nearestBits(format, value)));
  });

  it.each(narrow)('rounds any number to %s as the reference does', (dtype) => {
    const nearest = (value: number) => nearestBits(formats[dtype], value);
    fc.assert(
      fc.property(fc.double({ noNaN: true }), fc.float({ noNaN: true }), (double, float) => {
        expect(halvesOf(fromFloat64(dtype, Float64Array.of(double, float)))).toEqual([
          nearest(double),
          nearest(float),
        ]);
        expect(halvesOf(fromFloat32(dtype, Float32Array.of(float)))).toEqual([nearest(float)]);
      }),
      { numRuns: 5000 },
    );
  });

  it('does not round twice through float32', () => {
    const justAboveTie = 1 + 2 ** -8 + 2 ** -40;
    expect(halvesOf(fromFloat64('bfloat16', Float64Array.of(justAboveTie)))).toEqual([0x3f81]);
    const justBelowTie = 1 + 3 * 2 ** -11 - 2 ** -40;
    expect(halvesOf(fromFloat64('float16', Float64Array.of(justBelowTie)))).toEqual([0x3c01]);
  });

  it('keeps a NaN whose payload is in the bits that are dropped', () => {
    const nan = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001, 0xffffffff).buffer);
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const values = toFloat32(dtype, fromFloat32(dtype, nan), 3);
      expect(Array.from(values)).toEqual([Number.NaN, Number.NaN, Number.NaN]);
    }
  });

  it('brings float32 and float64 back bit for bit', () => {
    fc.assert(
      fc.property(fc.float64Array({ noNaN: true }), (values) => {
        const { length } = values;
        expect(toFloat64('float64', fromFloat64('float64', values), length)).toEqual(values);
        const floats = Float32Array.from(values);
        expect(toFloat32('float32', fromFloat64('float32', values), length)).toEqual(floats);
        expect(toFloat32('float64', fromFloat32('float64', floats), length)).toEqual(floats);
      }),
    );
  });
});

describe('integers', () => {
  const integerTypes = [
    ['int8', new Int8Array([-128, -1, 127])],
    ['uint8', new Uint8Array([0, 255])],
    ['int16', new Int16Array([-32768, 32767])],
    ['uint16', new Uint16Array([1, 65535])],
    ['int32', new Int32Array([-(2 ** 31), 5])],
    ['uint32', new Uint32Array([2 ** 32 - 1, 5])],
    ['int64', new BigInt64Array([-(2n ** 63n), 2n ** 53n + 1n])],
    ['uint64', new BigUint64Array([2n ** 64n - 1n])],
    ['bool', new Uint8Array([0, 1, 1])],
  ] as const;

  it.each(integerTypes)('reads %s at any alignment', (dtype, values) => {
    const bytes = new Uint8Array(values.buffer);
    expect(toIntegers(dtype, bytes, values.length)).toEqual(values);
    expect(toIntegers(dtype, misaligned(bytes), values.length)).toEqual(values);
  });

  it('unpacks narrow types from the lowest bits up', () => {
    const bytes = Uint8Array.of(0xf1, 0x08);
    expect(toIntegers('uint4', bytes, 3)).toEqual(Uint8Array.of(1, 15, 8));
    expect(toIntegers('int4', bytes, 3)).toEqual(Int8Array.of(1, -1, -8));
    expect(toIntegers('uint2', bytes, 5)).toEqual(Uint8Array.of(1, 0, 3, 3, 0));
    expect(toIntegers('int2', bytes, 6)).toEqual(Int8Array.of(1, 0, -1, -1, 0, -2));
  });
});

describe('bad arguments', () => {
  it('names the type that cannot be converted', () => {
    for (const dtype of ['int8', 'float8e4m3fn', 'complex64', 'string'] as const) {
      for (const run of [
        () => toFloat32(dtype, new Uint8Array(8), 1),
        () => toFloat64(dtype, new Uint8Array(8), 1),
        () => fromFloat32(dtype, new Float32Array(1)),
        () => fromFloat64(dtype, new Float64Array(1)),
      ]) {
        const error = errorOf(run);
        expect(error.code).toBe('unsupported');
        expect(error.message).toContain(dtype);
      }
    }
    expect(errorOf(() => toIntegers('float16', new Uint8Array(2), 1)).message).toContain('float16');
  });

  it('tells the length expected and found', () => {
    const error = errorOf(() => toFloat32('float16', new Uint8Array(5), 2));
    expect(error.code).toBe('invalid-argument');
    expect(error.message).toBe('2 float16 elements take 4 bytes, found 5');
    expect(errorOf(() => toIntegers('int4', new Uint8Array(1), 1.5)).code).toBe('invalid-argument');
    expect(errorOf(() => toFloat64('float64', new Uint8Array(0), -1)).code).toBe(
      'invalid-argument',
    );
  });
});
