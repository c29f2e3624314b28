/** The values of a page, nulls left out. */

import { convert, convertWithDictionary } from 'hyparquet/src/convert.js';
import { byteStreamSplit } from 'hyparquet/src/encoding.js';
import { readPlain } from 'hyparquet/src/plain.js';
import type { ColumnDecoder, DecodedArray } from 'hyparquet/src/types.js';
import { type Cursor, readDeltas, readRuns } from './bits.js';
import { limit, MAX_JSON_BYTES, MAX_PAGE_BYTES } from './limits.js';

/** Encodings, by the numbers that Parquet has for them. */
const PLAIN = 0;
const PLAIN_DICTIONARY = 2;
const RUNS = 3;
const DELTA = 5;
const DELTA_LENGTH = 6;
const DELTA_STRINGS = 7;
const DICTIONARY = 8;
const SPLIT = 9;

export type Values = ArrayLike<unknown>;

/**
 * Reads `count` values from the cursor to the end of the page.
 * @throws RangeError for a page that ends before, or an encoding that is not known
 */
export function readValues(
  cursor: Cursor,
  encoding: number,
  count: number,
  column: ColumnDecoder,
  dictionary: Values | undefined,
): Values {
  if (count === 0) return [];
  if (encoding === PLAIN_DICTIONARY || encoding === DICTIONARY) {
    return fromDictionary(cursor, count, column, dictionary);
  }
  const { type, element } = column;
  if (encoding === PLAIN && type === 'BYTE_ARRAY' && isText(column)) return texts(cursor, count);
  return converted(stored(cursor, encoding, count, type, element.type_length), column);
}

function fromDictionary(
  cursor: Cursor,
  count: number,
  column: ColumnDecoder,
  dictionary: Values | undefined,
): Values {
  if (!dictionary) throw new RangeError('a page needs a dictionary, and there is none');
  const indices = new Uint32Array(count);
  readRuns(cursor, cursor.view.getUint8(cursor.offset++), indices);
  const values = dictionary as DecodedArray;
  return convertWithDictionary(Array.from(indices), values, 'RLE_DICTIONARY', column);
}

function stored(
  cursor: Cursor,
  encoding: number,
  count: number,
  type: ColumnDecoder['type'],
  width: number | undefined,
): DecodedArray {
  const bits = type === 'INT32' ? 32 : 64;
  if (encoding === PLAIN) return readPlain(cursor, type, count, width);
  if (encoding === RUNS && type === 'BOOLEAN') return booleans(cursor, count);
  if (encoding === SPLIT) {
    limit('the size of a page', count * (width ?? 1), MAX_PAGE_BYTES);
    return byteStreamSplit(cursor, count, type, width);
  }
  if (encoding === DELTA && type.startsWith('INT')) {
    const values = readDeltas(cursor, count, bits);
    return bits === 32 ? Int32Array.from(values, Number) : BigInt64Array.from(values);
  }
  if (encoding === DELTA_LENGTH) return pieces(cursor, lengths(cursor, count));
  if (encoding === DELTA_STRINGS) return prefixed(cursor, count);
  throw new RangeError(`values of ${type} in the encoding ${encoding}`);
}

function booleans(cursor: Cursor, count: number): boolean[] {
  cursor.offset += 4;
  const values = new Uint8Array(count);
  readRuns(cursor, 1, values);
  return Array.from(values, (value) => value === 1);
}

function lengths(cursor: Cursor, count: number): number[] {
  return readDeltas(cursor, count, 32).map(Number);
}

function pieces(cursor: Cursor, sizes: readonly number[]): Uint8Array[] {
  return sizes.map((size) => {
    const { buffer, byteOffset } = cursor.view;
    if (size < 0 || cursor.offset + size > cursor.view.byteLength) {
      throw new RangeError(`a value has ${size} bytes`);
    }
    const piece = new Uint8Array(buffer, byteOffset + cursor.offset, size);
    cursor.offset += size;
    return piece;
  });
}

/** Each begins as the one before it: a few bytes may expand to a great many. */
function prefixed(cursor: Cursor, count: number): Uint8Array[] {
  const prefixes = lengths(cursor, count);
  const sizes = lengths(cursor, count);
  const total = prefixes.reduce((sum, prefix, i) => sum + prefix + sizes[i]!, 0);
  limit('the size of the values of a page', total, MAX_PAGE_BYTES);
  const suffixes = pieces(cursor, sizes);
  let previous = new Uint8Array();
  return suffixes.map((suffix, i) => {
    const prefix = prefixes[i]!;
    if (prefix < 0 || prefix > previous.length) throw new RangeError(`a prefix of ${prefix} bytes`);
    const value = new Uint8Array(prefix + suffix.length);
    value.set(previous.subarray(0, prefix));
    value.set(suffix, prefix);
    previous = value;
    return value;
  });
}

function isText({ element }: ColumnDecoder): boolean {
  const { converted_type, logical_type } = element;
  return converted_type === 'UTF8' || logical_type?.type === 'STRING';
}

const utf8 = new TextDecoder();

/** Straight from the page: an array of bytes for each would take more than the text. */
function texts(cursor: Cursor, count: number): string[] {
  const { view } = cursor;
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const values = new Array<string>(count);
  for (let i = 0; i < count; i++) {
    const start = cursor.offset + 4;
    const end = start + view.getUint32(cursor.offset, true);
    if (end > bytes.length) throw new RangeError('a text ends past its page');
    values[i] = utf8.decode(bytes.subarray(start, end));
    cursor.offset = end;
  }
  return values;
}

function converted(values: DecodedArray, column: ColumnDecoder): Values {
  const isJson = column.element.converted_type === 'JSON';
  const size = () => (values as Uint8Array[]).reduce((sum, { length }) => sum + length, 0);
  if (isJson) limit('the size of the JSON of a page', size(), MAX_JSON_BYTES);
  return convert(values, column);
}
