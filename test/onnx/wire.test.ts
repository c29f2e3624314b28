import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemorySource } from '../../src/onnx/source.js';
import {
  eachVarint,
  encodeString,
  fieldsOf,
  readFloats,
  readInt,
  readInts,
  readPackedInts,
  readString,
} from '../../src/onnx/wire.js';
import { failure } from '../support/files.js';
import { bytesField, concat, fixed32Field, varint, varintField } from '../support/wire.js';

const signed64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });

function open(...parts: readonly Uint8Array[]) {
  const bytes = concat(...parts);
  const source = new MemorySource(bytes);
  const range = { start: 0, end: bytes.length };
  return { source, range, fields: () => [...fieldsOf(source, range)] };
}

function only(field: Uint8Array) {
  const { source, fields } = open(field);
  return { source, field: fields()[0]! };
}

describe('varints', () => {
  it('keeps every number of 64 bits', () => {
    fc.assert(
      fc.property(fc.array(signed64), (values) => {
        const { source, range } = open(...values.map((value) => varint(value)));
        const halves: bigint[] = [];
        eachVarint(source, range, (low, high) => {
          halves.push((BigInt(high) << 32n) | BigInt(low >>> 0));
        });
        expect(halves).toEqual(values);
      }),
    );
  });

  it('gives numbers that JavaScript can hold exactly', () => {
    fc.assert(
      fc.property(fc.array(fc.maxSafeInteger()), (values) => {
        const { source, range } = open(...values.map((value) => varint(value)));
        expect(readPackedInts(source, range)).toEqual(values);
      }),
    );
  });

  it('reads them at any width', () => {
    for (let width = 1; width <= 10; width++) {
      const { source, field } = only(varintField(3, 42, width));
      expect(readInt(source, field)).toBe(42);
    }
  });

  it('refuses more than 10 bytes', async () => {
    const { fields } = open(varintField(3, 42, 11));
    expect((await failure(fields, 'invalid-model')).message).toContain('at byte 1 expected');
  });

  it('refuses one that its message cuts off', async () => {
    const { fields } = open(varintField(3, 300).subarray(0, 2));
    expect((await failure(fields, 'invalid-model')).message).toContain('a complete varint');
  });
});

describe('fields', () => {
  it('names the place of every field, known or not', () => {
    const { fields } = open(
      varintField(1, 7),
      bytesField(900, 'abc', 5),
      fixed32Field(2, new Uint8Array(4)),
    );
    expect(fields()).toEqual([
      { number: 1, wireType: 0, start: 0, value: 1, end: 2 },
      { number: 900, wireType: 2, start: 2, value: 9, end: 12 },
      { number: 2, wireType: 5, start: 12, value: 13, end: 17 },
    ]);
  });

  it.each([
    ['a length past the end', bytesField(1, 'abcdef').subarray(0, 4), 'takes it to byte 8'],
    ['a length of 2^63', concat(varint(10), varint(2n ** 63n)), 'to byte 9223372036854'],
    ['a fixed number past the end', fixed32Field(1, new Uint8Array(3)), 'to end by byte 4'],
    ['a group', varint(8 + 3), 'a wire type of 0, 1, 2 or 5, found 3'],
    ['field number 0', varintField(0, 1), 'a field number'],
    ['a field number of more than 29 bits', concat(varint(2n ** 35n), varint(1)), 'field number'],
  ])('refuses %s', async (_, bytes, problem) => {
    expect((await failure(open(bytes).fields, 'invalid-model')).message).toContain(problem);
  });

  it.each([
    ['an integer', readInt, bytesField(4, 'x')],
    ['a string', readString, varintField(4, 1)],
    ['float32 values', readFloats, varintField(4, 1)],
    ['float32 values', readFloats, bytesField(4, 'odd')],
  ])('says where it expected %s', async (what, read, bytes) => {
    const { source, field } = only(bytes);
    const { message } = await failure(() => read(source, field), 'invalid-model');
    expect(message).toContain(`at byte 0 expected ${what}`);
  });
});

describe('repeated numbers', () => {
  it('are the same packed and one a record', () => {
    const values = [0, 1, -1, 127, 128, 2 ** 40, -(2 ** 40)];
    const packed = only(bytesField(8, concat(...values.map((value) => varint(value)))));
    const { source, fields } = open(...values.map((value) => varintField(8, value)));
    expect(readInts(packed.source, packed.field)).toEqual(values);
    expect(fields().flatMap((field) => readInts(source, field))).toEqual(values);
  });

  it('are the same packed and one a record for floats', () => {
    const values = [0.5, -2, 3e38];
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    const packed = only(bytesField(7, bytes));
    const { source, fields } = open(
      ...values.map((_, i) => fixed32Field(7, bytes.subarray(4 * i, 4 * i + 4))),
    );
    const floats = [...Float32Array.from(values)];
    expect(readFloats(packed.source, packed.field)).toEqual(floats);
    expect(fields().flatMap((field) => readFloats(source, field))).toEqual(floats);
  });
});

describe('strings', () => {
  const codePoint = fc.oneof(
    fc.integer({ min: 0, max: 0xd7ff }),
    fc.integer({ min: 0xe000, max: 0x10ffff }),
  );
  const roundTrip = (bytes: Uint8Array) => {
    const { source, field } = only(bytesField(1, bytes));
    return new Uint8Array(encodeString(readString(source, field)));
  };

  it('give back whatever bytes they were, UTF-8 or not', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(roundTrip(bytes)).toEqual(new Uint8Array(bytes));
      }),
    );
  });

  it('are read as UTF-8, a byte order mark included', () => {
    fc.assert(
      fc.property(fc.array(codePoint, { maxLength: 8 }), (codePoints) => {
        const text = `\uFEFF${String.fromCodePoint(...codePoints)}`;
        const { source, field } = only(bytesField(1, text));
        expect(readString(source, field)).toBe(text);
      }),
    );
  });

  it('are not read where they would be a weight', async () => {
    const end = 17 * 2 ** 20;
    const source = new MemorySource(new Uint8Array(end));
    const field = { number: 1, wireType: 2, start: 0, value: 0, end };
    const { message } = await failure(() => readString(source, field), 'invalid-model');
    expect(message).toContain('a string of at most 16777216 bytes, found 17825792');
  });
});
