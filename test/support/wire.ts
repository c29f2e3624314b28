/** Protobuf by hand: what onnx-proto cannot write, such as unknown fields and padded lengths. */
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';
import { fieldsOf, WireType } from '../../src/onnx/wire.js';

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** A varint, padded to `width` bytes where it would be shorter. */
export function varint(value: number | bigint, width = 1): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    bytes.push(Number(rest & 0x7fn));
    rest >>= 7n;
  } while (rest > 0n || bytes.length < width);
  return Uint8Array.from(bytes, (byte, i) => (i < bytes.length - 1 ? byte | 0x80 : byte));
}

export function varintField(number: number, value: number | bigint, width = 1): Uint8Array {
  return concat(varint(number * 8 + WireType.Varint), varint(value, width));
}

/** A length-delimited field; its length takes at least `width` bytes. */
export function bytesField(number: number, payload: Uint8Array | string, width = 1): Uint8Array {
  const bytes = Buffer.from(payload);
  return concat(varint(number * 8 + WireType.Bytes), varint(bytes.length, width), bytes);
}

export function fixed32Field(number: number, payload: Uint8Array): Uint8Array {
  return concat(varint(number * 8 + WireType.Fixed32), payload);
}

/** The nested messages of a message: field number to what is nested in it in turn. */
export interface Nesting {
  readonly [field: number]: Nesting;
}

/** The nodes of a model and their strings. */
export const NODES: Nesting = { 7: { 1: {} } };

/** The same message with every length padded to `width` bytes, in the nested messages too. */
export function padLengths(message: Uint8Array, width: number, nesting: Nesting): Uint8Array {
  const source = new MemorySource(message);
  const fields = [...fieldsOf(source, { start: 0, end: message.length })];
  return concat(
    ...fields.map((field) => {
      if (field.wireType !== WireType.Bytes) return source.read(field.start, field.end);
      const payload = source.read(field.value, field.end);
      const nested = nesting[field.number];
      return bytesField(field.number, nested ? padLengths(payload, width, nested) : payload, width);
    }),
  );
}

/** `message` with records behind its last field, `path` leading to the (first) nested one. */
export function extend(
  message: Uint8Array,
  path: readonly number[],
  ...records: readonly Uint8Array[]
): Uint8Array {
  const [next, ...rest] = path;
  if (next === undefined) return concat(message, ...records);
  const source = new MemorySource(message);
  const fields = [...fieldsOf(source, { start: 0, end: message.length })];
  const field = fields.find(({ number }) => number === next);
  if (!field) throw new Error(`no field ${next}`);
  return concat(
    message.subarray(0, field.start),
    bytesField(next, extend(source.read(field.value, field.end), rest, ...records)),
    message.subarray(field.end),
  );
}

export function parse(bytes: Uint8Array) {
  return parseModel(new MemorySource(bytes));
}
