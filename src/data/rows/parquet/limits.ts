/**
 * Limits for Parquet files. A few bytes can stand for any number of values, so sizes are looked
 * at before memory is taken for them.
 */
import { OnnxLoraError } from '../../../errors.js';

/** Footers describe columns and groups: a hundred columns in a thousand groups take ten megabytes. */
export const MAX_FOOTER_BYTES = 2 ** 24;

/** Statistics in the header of a page hold two values of the column. */
export const MAX_HEADER_BYTES = 2 ** 24;

/** Unpacked. Writers aim at one megabyte; the largest pages hold a whole group. */
export const MAX_PAGE_BYTES = 2 ** 28;

/** Of one page, nulls included. Writers stop at twenty thousand, or at the rows of a group. */
export const MAX_PAGE_VALUES = 2 ** 22;

/** In the pages of all columns that are open at a time. */
export const MAX_OPEN_VALUES = 2 ** 23;
export const MAX_OPEN_BYTES = 2 ** 29;

/** Lists in objects in lists. Conversations with calls of tools have ten. */
export const MAX_LEVELS = 32;

/** Of the JSON in one page, whose values take up to twenty times as much. */
export const MAX_JSON_BYTES = 2 ** 25;

/** Of one row as JSON: what is read of other files. */
export const MAX_ROW_CHARACTERS = 2 ** 25;

/** The rows as JSON, by the bytes of the file. Codecs make a tenth of texts, or a fiftieth where they recur. */
const MAX_RATIO = 256;
const ALWAYS_BYTES = 2 ** 24;

/** Limit of the length of all rows as JSON. */
function maxUnpacked(fileBytes: number): number {
  return Math.max(ALWAYS_BYTES, MAX_RATIO * fileBytes);
}

/** @throws OnnxLoraError `invalid-data` for more than `most` */
export function limit(what: string, found: number, most: number, hint = SMALLER): void {
  if (found <= most) return;
  throw new OnnxLoraError('invalid-data', `${what} is ${found}, at most ${most} is read`, { hint });
}

const SMALLER =
  'Write the file anew in smaller groups of rows: pyarrow.parquet.write_table(table, path, row_group_size=10_000).';

/** @throws OnnxLoraError `invalid-data` for rows of more bytes as JSON than a file of this size may hold */
export function limitRows(jsonBytes: number, fileBytes: number): void {
  const hint =
    'So small a file hardly holds so many different rows. If it does, write them as JSON lines.';
  limit('the size of its rows as JSON', jsonBytes, maxUnpacked(fileBytes), hint);
}
