/**
 * Edits of a message as splices of its bytes: what is not named is copied as it came, unknown
 * fields included. Only the lengths in front of the enclosing messages are written anew.
 */
import type { ByteSource } from './byte-source.js';
import type { Field, Range } from './wire.js';

/** Bytes that are computed when they are written, a chunk at a time. */
export interface Computed {
  /** Number of bytes. */
  readonly length: number;
  /** The bytes, piece by piece. */
  chunks(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** Bytes in a source. */
export interface Span extends Range {
  /** The file, or the memory. */
  readonly source: ByteSource;
}

/** A stretch of an output file. */
export type Piece = Uint8Array | Span | Computed;

interface Splice extends Range {
  /** An edit of what is in a field. */
  readonly isNested?: boolean;
  pieces(): Piece[];
}

/** Collects the changes to one message; `pieces` is the message with them. */
export class MessageEdit {
  private readonly splices: Splice[] = [];
  private readonly children = new Map<number, MessageEdit>();
  private readonly payloads = new Map<number, Piece[]>();
  /** Starts of the fields that are removed, together with the nested ones. */
  private readonly removed = new Set<number>();

  constructor(
    private readonly source: ByteSource,
    private readonly range: Range,
  ) {}

  /** Puts records in the place of a field. */
  replace(field: Field, ...pieces: Piece[]): void {
    this.splices.push({ start: field.start, end: field.end, pieces: () => pieces });
  }

  /** Gives a length-delimited field another payload; of several calls the last one holds. */
  setPayload(field: Field, ...payload: Piece[]): void {
    const isKnown = this.payloads.has(field.start);
    this.payloads.set(field.start, [this.headerLike(field, totalLength(payload)), ...payload]);
    if (isKnown) return;
    const pieces = () => this.payloads.get(field.start)!;
    this.splices.push({ start: field.start, end: field.end, pieces });
  }

  /** Takes a field out, whatever else is said of what is in it; may be called again. */
  remove(field: Field): void {
    if (this.removed.has(field.start)) return;
    this.removed.add(field.start);
    this.replace(field);
  }

  /** Adds records after a field; several calls keep their order. */
  insertAfter(field: Field, ...pieces: Piece[]): void {
    this.splices.push({ start: field.end, end: field.end, pieces: () => pieces });
  }

  /** Adds records in front of a field; several calls keep their order. */
  insertBefore(field: Field, ...pieces: Piece[]): void {
    this.splices.push({ start: field.start, end: field.start, pieces: () => pieces });
  }

  /** Adds records at the end of the message. */
  append(...pieces: Piece[]): void {
    this.splices.push({ start: this.range.end, end: this.range.end, pieces: () => pieces });
  }

  /** The edit of the nested message in `field`; always the same one for the same field. */
  child(field: Field): MessageEdit {
    const known = this.children.get(field.start);
    if (known) return known;
    const child = new MessageEdit(this.source, { start: field.value, end: field.end });
    this.children.set(field.start, child);
    const pieces = () => {
      const body = child.pieces();
      return [this.headerLike(field, totalLength(body)), ...body];
    };
    this.splices.push({ start: field.start, end: field.end, isNested: true, pieces });
    return child;
  }

  /** Whether what these fields lead to, from one message into the next, is replaced or removed. */
  drops([field, ...inner]: readonly Field[]): boolean {
    if (!field) return false;
    const child = this.children.get(field.start);
    if (child) return child.drops(inner);
    const { start, end } = field;
    return this.splices.some((splice) => splice.start <= start && end <= splice.end);
  }

  /**
   * The edited message.
   * @throws Error where two edits overlap: a bug in the caller
   */
  pieces(): Piece[] {
    const result: Piece[] = [];
    let offset = this.range.start;
    for (const splice of inFileOrder(this.splices.filter((one) => !this.isVoid(one)))) {
      if (splice.start < offset) throw new Error(`overlapping edits at byte ${splice.start}`);
      if (splice.start > offset) result.push(this.span(offset, splice.start));
      for (const piece of splice.pieces()) result.push(piece);
      offset = splice.end;
    }
    if (offset < this.range.end) result.push(this.span(offset, this.range.end));
    return result;
  }

  /** An edit inside of a field that is taken out. */
  private isVoid({ start, isNested = false }: Splice): boolean {
    return isNested && this.removed.has(start);
  }

  /**
   * The header of `field` for another length. Some writers reserve four or five bytes for a length
   * before it is known; the new length keeps that width, so that undoing an edit gives the same
   * bytes again. It must not grow instead: other readers take no more than five bytes.
   */
  private headerLike(field: Field, length: number): Uint8Array {
    const header = this.source.read(field.start, field.value);
    const tagLength = header.findIndex((byte) => byte < 0x80) + 1;
    const width = header.length - tagLength;
    const isPadded = width > [...varint(field.end - field.value)].length;
    const digits = [...varint(length)];
    while (isPadded && digits.length < width) {
      digits[digits.length - 1]! |= 0x80;
      digits.push(0);
    }
    return Uint8Array.from([...header.subarray(0, tagLength), ...digits]);
  }

  private span(start: number, end: number): Span {
    return { source: this.source, start, end };
  }
}

// An insertion between two fields comes before the replacement of the second one.
function inFileOrder(splices: readonly Splice[]): Splice[] {
  return [...splices].sort((a, b) => a.start - b.start || a.end - b.end);
}

export function pieceLength(piece: Piece): number {
  return 'start' in piece ? piece.end - piece.start : piece.length;
}

export function totalLength(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, piece) => sum + pieceLength(piece), 0);
}

/** The tag and length in front of a length-delimited payload, in their shortest form. */
export function recordHeader(fieldNumber: number, length: number): Uint8Array {
  return Uint8Array.from([...varint(fieldNumber * 8 + 2), ...varint(length)]);
}

function* varint(value: number): Generator<number> {
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) yield (rest % 0x80) + 0x80;
  yield rest;
}

/** The pieces in memory. */
export async function collect(pieces: readonly Piece[]): Promise<Uint8Array> {
  const bytes = new Uint8Array(totalLength(pieces));
  let at = 0;
  for (const piece of pieces) {
    if (piece instanceof Uint8Array) bytes.set(piece, at);
    else if ('start' in piece)
      piece.source.readInto(bytes.subarray(at, at + pieceLength(piece)), piece.start);
    else {
      let offset = at;
      for await (const chunk of piece.chunks()) {
        bytes.set(chunk, offset);
        offset += chunk.byteLength;
      }
    }
    at += pieceLength(piece);
  }
  return bytes;
}
