/** Damage to protobuf messages on the wire: records, their order, their lengths, their numbers. */

import { MemorySource } from '../../src/onnx/memory-source.js';
import { fieldsOf, WireType } from '../../src/onnx/wire.js';
import { bytesField, concat, type Nesting, varint } from '../../test/support/wire.js';
import type { Random } from '../random.js';
import { damageBytes } from './bytes.js';

/** A record with its bytes, header included. */
interface WireRecord {
  readonly number: number;
  readonly wireType: number;
  readonly bytes: Uint8Array;
  readonly payload: Uint8Array;
}

/**
 * The message with one record damaged, at any depth that `nesting` knows of. A message that is damaged
 * already may not be one any more: then its bytes are.
 */
export function damageMessage(message: Uint8Array, nesting: Nesting, random: Random): Uint8Array {
  let records: WireRecord[];
  try {
    records = recordsOf(message);
  } catch {
    return damageBytes(message, random);
  }
  if (records.length === 0) return random.bytes(random.below(8));
  const at = random.below(records.length);
  const nested = nesting[records[at]!.number];
  const { number, wireType, payload } = records[at]!;
  const isMessage = nested !== undefined && wireType === WireType.Bytes;
  const damaged =
    isMessage && random.chance(0.9)
      ? [bytesField(number, damageMessage(payload, nested, random))]
      : random.pick(damages)(records, at, random);
  return concat(...bytesOf(records, 0, at), ...damaged, ...bytesOf(records, at + 1));
}

function recordsOf(message: Uint8Array): WireRecord[] {
  const source = new MemorySource(message);
  return [...fieldsOf(source, { start: 0, end: message.length })].map((field) => ({
    number: field.number,
    wireType: field.wireType,
    bytes: message.subarray(field.start, field.end),
    payload: message.subarray(field.value, field.end),
  }));
}

function bytesOf(records: readonly WireRecord[], from: number, to?: number): Uint8Array[] {
  return records.slice(from, to).map(({ bytes }) => bytes);
}

type Damage = (records: readonly WireRecord[], at: number, random: Random) => Uint8Array[];

const damages: readonly Damage[] = [
  // Missing.
  () => [],
  // Twice.
  (records, at) => [records[at]!.bytes, records[at]!.bytes],
  // Another one in its place.
  (records, _, random) => [random.pick(records).bytes],
  // In front of, or behind, what it stood behind.
  (records, at, random) => {
    const other = random.pick(records);
    return random.chance(0.5)
      ? [other.bytes, records[at]!.bytes]
      : [records[at]!.bytes, other.bytes];
  },
  // Cut off.
  (records, at, random) => [
    records[at]!.bytes.subarray(0, random.below(records[at]!.bytes.length)),
  ],
  (records, at, random) => [renumbered(records[at]!, random)],
  (records, at, random) => [wrongLength(records[at]!, random)],
  (records, at, random) => [padded(records[at]!, random)],
  (records, at, random) => [deepInside(records[at]!, random)],
  (records, at, random) => [otherPayload(records[at]!, random)],
];

function renumbered({ payload, wireType, number }: WireRecord, random: Random): Uint8Array {
  const other = random.pick([number, random.below(30), random.below(30), 2 ** 29 - 1]);
  const type = random.chance(0.5) ? wireType : random.below(8);
  return concat(varint(other * 8 + type), payload);
}

function wrongLength({ number, payload }: WireRecord, random: Random): Uint8Array {
  const { length } = payload;
  const wrong = random.pick([0, length + 1, Math.max(0, length - 1), 2 ** 31, 2 ** 40, 2 ** 63]);
  return concat(varint(number * 8 + WireType.Bytes), varint(BigInt(wrong)), payload);
}

/** The same in more bytes: lengths and tags may be padded. */
function padded({ number, wireType, payload }: WireRecord, random: Random): Uint8Array {
  const width = 1 + random.below(11);
  const tag = varint(number * 8 + wireType, random.chance(0.5) ? width : 1);
  if (wireType !== WireType.Bytes) return concat(tag, payload);
  return concat(tag, varint(payload.length, width), payload);
}

/** The record within itself, again and again: graphs in attributes of nodes, if it is one. */
function deepInside({ number, payload }: WireRecord, random: Random): Uint8Array {
  let inner = payload;
  for (let depth = random.pick([2, 60, 70, 1000]); depth > 0; depth--) {
    inner = bytesField(number, inner);
    if (inner.length > 1e5) break;
  }
  return inner;
}

function otherPayload({ number, wireType, payload }: WireRecord, random: Random): Uint8Array {
  const tag = varint(number * 8 + wireType);
  if (wireType === WireType.Varint) {
    const bits = random.pick([
      0n,
      1n,
      2n,
      7n,
      127n,
      2n ** 31n,
      2n ** 53n,
      2n ** 63n,
      2n ** 64n - 1n,
    ]);
    return concat(tag, varint(bits));
  }
  if (wireType !== WireType.Bytes) return concat(tag, random.bytes(payload.length));
  return bytesField(number, payload.length > 0 ? damageBytes(payload, random) : random.bytes(3));
}
