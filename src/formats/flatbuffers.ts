/**
 * Reading FlatBuffers from files that are not trusted: every offset and length is checked against the
 * file before it is followed, and nothing but what is asked for is read, so that a buffer of gigabytes
 * costs no memory. Source: https://flatbuffers.dev/internals
 */
import { OnnxLoraError } from '../errors.js';
import type { ByteSource } from '../onnx/byte-source.js';

const IDENTIFIER_BYTES = 4;
const VTABLE_HEADER_BYTES = 4;

/** The target of a table's offset: elements one after the other. */
export interface Vector {
  /** Of the first element. */
  readonly start: number;
  readonly length: number;
}

/** The root table of a buffer with this identifier. */
export function rootTable(source: ByteSource, identifier: string): Table {
  const start = 2 * IDENTIFIER_BYTES;
  if (source.size < start) throw damaged(source, `has ${source.size} bytes, expected more`);
  const found = String.fromCharCode(...source.read(IDENTIFIER_BYTES, start));
  if (found !== identifier) {
    throw damaged(source, `has the identifier ${JSON.stringify(found)}, expected "${identifier}"`);
  }
  return new Table(source, follow(source, 0));
}

/** A table: its vtable gives the places of its fields, which may be absent. */
export class Table {
  private readonly vtable: number;
  private readonly vtableBytes: number;
  private readonly bytes: number;

  constructor(
    private readonly source: ByteSource,
    private readonly at: number,
  ) {
    this.vtable = at - view(source, at, 4).getInt32(0, true);
    this.vtableBytes = view(source, this.vtable, 2).getUint16(0, true);
    this.bytes = view(source, this.vtable + 2, 2).getUint16(0, true);
    // Checks that vtable and table end within the file.
    view(source, this.vtable, Math.max(this.vtableBytes, VTABLE_HEADER_BYTES));
    view(source, at, Math.max(this.bytes, 4));
  }

  /** An int; 0 where it is absent. */
  int(field: number): number {
    const at = this.field(field);
    return at === undefined ? 0 : view(this.source, at, 4).getInt32(0, true);
  }

  /** A vector of elements of this many bytes, checked to end within the file. */
  vector(field: number, elementBytes: number): Vector | undefined {
    const at = this.field(field);
    if (at === undefined) return undefined;
    const vector = follow(this.source, at);
    const length = view(this.source, vector, 4).getUint32(0, true);
    const start = vector + 4;
    if (start + length * elementBytes <= this.source.size) return { start, length };
    throw damaged(
      this.source,
      `has a vector of ${length} elements at byte ${vector}, more than the file holds`,
    );
  }

  /** The tables of a vector. */
  *tables(field: number): Generator<Table> {
    const { start, length } = this.vector(field, 4) ?? { start: 0, length: 0 };
    for (let i = 0; i < length; i++) {
      yield new Table(this.source, follow(this.source, start + 4 * i));
    }
  }

  /** Text in UTF-8 of at most this many bytes; '' where it is absent. */
  text(field: number, maxBytes: number): string {
    const { start, length } = this.vector(field, 1) ?? { start: 0, length: 0 };
    if (length > maxBytes) {
      throw damaged(this.source, `has a name of ${length} bytes, expected at most ${maxBytes}`);
    }
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(
        this.source.read(start, start + length),
      );
    } catch (error) {
      throw damaged(this.source, `has text at byte ${start} that is not UTF-8`, error);
    }
  }

  private field(index: number): number | undefined {
    const entry = VTABLE_HEADER_BYTES + 2 * index;
    if (entry + 2 > this.vtableBytes) return undefined;
    const offset = view(this.source, this.vtable + entry, 2).getUint16(0, true);
    if (offset === 0) return undefined;
    if (offset + 4 <= this.bytes) return this.at + offset;
    throw damaged(this.source, `has a table at byte ${this.at} that is shorter than its fields`);
  }
}

/** The target of the offset at a place: forward, from that place. */
function follow(source: ByteSource, at: number): number {
  return at + view(source, at, 4).getUint32(0, true);
}

function view(source: ByteSource, at: number, length: number): DataView {
  if (at < 0 || at + length > source.size) {
    throw damaged(
      source,
      `points at bytes ${at} to ${at + length}, expected less than ${source.size}`,
    );
  }
  const bytes = source.read(at, at + length);
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function damaged(source: ByteSource, problem: string, cause?: unknown): OnnxLoraError {
  return new OnnxLoraError('invalid-adapter', `${source.label} ${problem}`, {
    hint: 'Is it the right file, and complete?',
    cause,
  });
}
