/**
 * Protobuf's wire format, read in place: a message is a run of fields, each a tag (number and wire
 * type) and a payload. Nothing is decoded before it is asked for, and payloads are named by their
 * byte ranges, so an unknown field is kept by copying its range.
 * Format: https://protobuf.dev/programming-guides/encoding/
 */
import { OnnxLoraError } from '../errors.js';
import type { ByteSource } from './byte-source.js';

export const WireType = { Varint: 0, Fixed64: 1, Bytes: 2, Fixed32: 5 } as const;

/** A range of bytes, `end` exclusive. */
export interface Range {
  /** The first byte. */
  readonly start: number;
  /** The byte after the last one. */
  readonly end: number;
}

/** One field of a message: `start` is its tag, `value` its payload, `end` what follows it. */
export interface Field extends Range {
  /** Number of the field in its message. */
  readonly number: number;
  /** Wire type of protobuf: 0 varint, 1 fixed64, 2 length-delimited, 5 fixed32. */
  readonly wireType: number;
  /** The first byte after tag and length. */
  readonly value: number;
}

// An identifier or a path; the longest seen in exported models are a few hundred bytes. A corrupt
// length must not make us read a gigabyte of weights as a name.
const MAX_STRING_BYTES = 16 * 1024 * 1024;

/**
 * Values of metadata are read when asked for, and some are long for a reason: the manifest of adapters
 * beside 18,432 layers, as it was written before such ones were deflated, has 31 MB.
 */
export const MAX_TEXT_BYTES = 256 * 1024 * 1024;

/**
 * The fields of the message in `range`, in file order.
 * @throws OnnxLoraError `invalid-model` where a field runs past the end of its message
 */
export function* fieldsOf(source: ByteSource, range: Range): Generator<Field> {
  const cursor = new Cursor(source, range.start, range.end);
  while (cursor.offset < range.end) yield cursor.field();
}

/** Reads varints from one message, never past its end. */
class Cursor {
  low = 0;
  high = 0;

  constructor(
    private readonly source: ByteSource,
    public offset: number,
    private readonly end: number,
  ) {}

  field(): Field {
    const start = this.offset;
    this.varint();
    const number = this.low >>> 3;
    const wireType = this.low & 7;
    if (number === 0 || this.high !== 0) {
      throw malformed(this.source, start, 'a field number', 'other bytes');
    }
    const [value, end] = this.payload(wireType, start);
    if (end > this.end) {
      throw malformed(
        this.source,
        start,
        `field ${number} to end by byte ${this.end}`,
        `a length that takes it to byte ${end}`,
      );
    }
    this.offset = end;
    return { number, wireType, start, value, end };
  }

  private payload(wireType: number, start: number): [value: number, end: number] {
    const value = this.offset;
    switch (wireType) {
      case WireType.Varint:
        this.varint();
        return [value, this.offset];
      case WireType.Fixed64:
        return [value, value + 8];
      case WireType.Fixed32:
        return [value, value + 4];
      case WireType.Bytes:
        this.varint();
        return [this.offset, this.offset + (this.high >>> 0) * 2 ** 32 + (this.low >>> 0)];
      default:
        throw malformed(this.source, start, 'a wire type of 0, 1, 2 or 5', String(wireType));
    }
  }

  /** Leaves the value's halves in `low` and `high`: 64 bits do not fit a number. */
  varint(): void {
    const start = this.offset;
    this.low = 0;
    this.high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.offset >= this.end) {
        throw malformed(this.source, start, 'a complete varint', 'the end of its message');
      }
      const byte = this.source.byteAt(this.offset++);
      if (shift < 28) this.low |= (byte & 0x7f) << shift;
      else if (shift === 28) {
        this.low |= (byte & 0x0f) << 28;
        this.high = (byte & 0x7f) >>> 4;
      } else if (shift < 63) this.high |= (byte & 0x7f) << (shift - 32);
      else this.high |= (byte & 1) << 31;
      if (byte < 0x80) return;
    }
    throw malformed(this.source, start, 'a varint of at most 10 bytes', 'a longer one');
  }
}

/** A varint field as a signed 64-bit number; beyond 2^53 it is rounded, as JavaScript does. */
export function readInt(source: ByteSource, field: Field): number {
  expectWireType(source, field, WireType.Varint, 'an integer');
  return readPackedInts(source, { start: field.value, end: field.end })[0]!;
}

/** A run of signed 64-bit varints without tags. */
export function readPackedInts(source: ByteSource, range: Range): number[] {
  const values: number[] = [];
  eachVarint(source, range, (low, high) => values.push(high * 2 ** 32 + (low >>> 0)));
  return values;
}

/** A repeated integer field as it is in the file: no value is rounded. */
export function readBigInts(source: ByteSource, field: Field): bigint[] {
  const values: bigint[] = [];
  eachVarint(source, { start: field.value, end: field.end }, (low, high) => {
    values.push((BigInt(high) << 32n) + BigInt(low >>> 0));
  });
  return values;
}

/** Calls `take` with the halves of every varint of a run without tags: no value is rounded. */
export function eachVarint(
  source: ByteSource,
  range: Range,
  take: (low: number, high: number) => void,
): void {
  const cursor = new Cursor(source, range.start, range.end);
  while (cursor.offset < range.end) {
    cursor.varint();
    take(cursor.low, cursor.high);
  }
}

/** A repeated integer field, packed into one record or one value a record. */
export function readInts(source: ByteSource, field: Field): number[] {
  return field.wireType === WireType.Bytes
    ? readPackedInts(source, { start: field.value, end: field.end })
    : [readInt(source, field)];
}

/** A repeated float field, packed or not. */
export function readFloats(source: ByteSource, field: Field): number[] {
  const length = field.end - field.value;
  if (field.wireType === WireType.Varint || length % 4 !== 0) {
    throw malformed(source, field.start, 'float32 values', `${length} bytes`);
  }
  const bytes = source.read(field.value, field.end);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A string field. Bytes that are not UTF-8 come as lone surrogates, so that they can go back. */
export function readString(source: ByteSource, field: Field, maxBytes = MAX_STRING_BYTES): string {
  expectWireType(source, field, WireType.Bytes, 'a string');
  const length = field.end - field.value;
  if (length > maxBytes) {
    throw malformed(source, field.start, `a string of at most ${maxBytes} bytes`, length);
  }
  const bytes = source.read(field.value, field.end);
  try {
    return utf8.decode(bytes);
  } catch {
    return Array.from(bytes, (byte) =>
      String.fromCharCode(byte < 0x80 ? byte : ESCAPE + byte),
    ).join('');
  }
}

// Python's "surrogateescape": byte b of a string in another encoding is U+DC00 + b.
const ESCAPE = 0xdc00;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** The bytes of a string that `readString` gave. */
export function encodeString(text: string): Uint8Array {
  if (!LONE_SURROGATE.test(text)) return Buffer.from(text, 'utf8');
  return Buffer.concat(
    Array.from(text, (char) => {
      const code = char.charCodeAt(0);
      return code >= ESCAPE + 0x80 && code <= ESCAPE + 0xff && char.length === 1
        ? Uint8Array.of(code - ESCAPE)
        : Buffer.from(char, 'utf8');
    }),
  );
}

/** The payload of a nested message. */
export function messageRange(source: ByteSource, field: Field): Range {
  expectWireType(source, field, WireType.Bytes, 'a message');
  return { start: field.value, end: field.end };
}

function expectWireType(source: ByteSource, field: Field, type: number, what: string): void {
  if (field.wireType !== type) {
    throw malformed(
      source,
      field.start,
      `${what} in field ${field.number}`,
      `wire type ${field.wireType}`,
    );
  }
}

/** The error for bytes that are not an ONNX model. */
export function malformed(
  source: ByteSource,
  offset: number,
  expected: string,
  found: string | number,
): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-model',
    `${source.label} is not a valid ONNX file: at byte ${offset} expected ${expected}, found ${found}`,
    {
      hint: 'The file may be truncated or damaged, or not an ONNX model: fetch or export it again.',
    },
  );
}
