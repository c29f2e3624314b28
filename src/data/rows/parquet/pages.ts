/** The pages of a column in one group of rows: their headers, checked, and their bytes, unpacked. */
import type { ColumnMetaData } from 'hyparquet';
import { deserializeTCompactProtocol } from 'hyparquet/src/thrift.js';
import type { ByteSource } from '../../../onnx/byte-source.js';
import type { Codecs } from './codecs.js';
import { limit, MAX_HEADER_BYTES, MAX_PAGE_BYTES, MAX_PAGE_VALUES } from './limits.js';

/** A page, unpacked. */
export interface Page {
  readonly kind: 'dictionary' | 'data';
  readonly values: number;
  /** The number that Parquet has for it. */
  readonly encoding: number;
  /** Levels, if they are written in front of the values; those of the second version are apart. */
  readonly bytes: Uint8Array;
  readonly levels?: { readonly repetition: Uint8Array; readonly definition: Uint8Array };
}

interface Header {
  readonly type: number;
  readonly unpacked: number;
  readonly packed: number;
  readonly values: number;
  readonly encoding: number;
  readonly levels?: { readonly repetition: number; readonly definition: number };
  readonly isPacked: boolean;
}

const [DATA, DICTIONARY, DATA_V2] = [0, 2, 3];

/** Enough for a header without statistics. */
const FIRST_BYTES = 512;

/** The pages with values, in their order; what else there may be is passed over. */
export function* pagesOf(
  file: ByteSource,
  column: ColumnMetaData,
  codecs: Codecs,
): Generator<Page> {
  const { start, end } = rangeOf(file, column);
  for (let at = start; at < end; ) {
    const { header, size } = headerAt(file, at, end);
    const next = at + size + header.packed;
    if (next > end) throw new RangeError(`a page ends ${next - end} bytes past its column`);
    if ([DATA, DICTIONARY, DATA_V2].includes(header.type)) {
      yield unpacked(file.read(at + size, next), header, codecs[column.codec]!);
    }
    at = next;
  }
}

function rangeOf(file: ByteSource, column: ColumnMetaData): { start: number; end: number } {
  const start = Number(column.dictionary_page_offset || column.data_page_offset);
  const end = start + Number(column.total_compressed_size);
  if (start >= 0 && start <= end && end <= file.size) return { start, end };
  throw new RangeError(`a column has the bytes ${start} to ${end}, the file has ${file.size}`);
}

function headerAt(file: ByteSource, at: number, end: number): { header: Header; size: number } {
  for (let bytes = FIRST_BYTES; ; bytes *= 8) {
    const isAll = at + bytes >= end || bytes >= MAX_HEADER_BYTES;
    const window = file.read(at, Math.min(end, at + bytes));
    const reader = { view: new DataView(window.buffer), offset: 0 };
    try {
      const fields = deserializeTCompactProtocol(reader);
      return { header: checked(fields as Fields), size: reader.offset };
    } catch (error) {
      if (isAll || !isCut(error)) throw error;
    }
  }
}

/** Whether more bytes may help. */
function isCut(error: unknown): boolean {
  return error instanceof RangeError || /^thrift (struct|binary)/.test((error as Error).message);
}

/** Numbers of Parquet's definition; a missing one, or one of another type, is an error. */
type Fields = Readonly<Record<`field_${number}`, unknown>>;

function checked(fields: Fields): Header {
  const type = numberIn(fields, 1);
  const [unpacked, packed] = [numberIn(fields, 2), numberIn(fields, 3)];
  limit('the size of a page', Math.max(unpacked, packed), MAX_PAGE_BYTES);
  const sizes = { type, unpacked, packed };
  if (type === DATA) return { ...sizes, ...countOf(fields, 5, 1, 2), isPacked: true };
  if (type === DICTIONARY) return { ...sizes, ...countOf(fields, 7, 1, 2), isPacked: true };
  if (type !== DATA_V2) return { ...sizes, values: 0, encoding: 0, isPacked: true };
  const more = partOf(fields, 8);
  const levels = { definition: numberIn(more, 5), repetition: numberIn(more, 6) };
  if (levels.definition + levels.repetition > Math.min(packed, unpacked)) {
    throw new RangeError('the levels of a page are longer than the page');
  }
  return { ...sizes, ...countOf(fields, 8, 1, 4), levels, isPacked: more.field_7 !== false };
}

function countOf(fields: Fields, part: number, values: number, encoding: number) {
  const found = partOf(fields, part);
  const count = numberIn(found, values);
  limit('the number of values of a page', count, MAX_PAGE_VALUES);
  return { values: count, encoding: numberIn(found, encoding) };
}

function partOf(fields: Fields, number: number): Fields {
  const part = fields[`field_${number}`];
  if (typeof part === 'object' && part !== null) return part as Fields;
  throw new RangeError('the header of a page lacks a part');
}

function numberIn(fields: Fields, number: number): number {
  const value = fields[`field_${number}`];
  if (typeof value === 'number' && value >= 0) return value;
  throw new RangeError('the header of a page is damaged');
}

function unpacked(
  bytes: Uint8Array,
  header: Header,
  decompress: (input: Uint8Array, length: number) => Uint8Array,
): Page {
  const { type, values, encoding, levels, isPacked } = header;
  const kind = type === DICTIONARY ? 'dictionary' : 'data';
  const front = levels ? levels.repetition + levels.definition : 0;
  const packed = bytes.subarray(front);
  const length = header.unpacked - front;
  // Pages of nulls alone have nothing to unpack.
  const made = isPacked && packed.length > 0 ? decompress(packed, length) : packed;
  if (made.length !== length) {
    throw new RangeError(`a page has ${made.length} bytes, its header says ${length}`);
  }
  const page = { kind, values, encoding, bytes: made } as const;
  if (!levels) return page;
  const repetition = bytes.subarray(0, levels.repetition);
  const definition = bytes.subarray(levels.repetition, front);
  return { ...page, levels: { repetition, definition } };
}
