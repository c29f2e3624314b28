/** Rows of files without tensors, and their formats. */
import type { ByteSource } from '../../onnx/byte-source.js';
import { BadRow } from './bad-row.js';

/** Values by field. */
export type Row = Readonly<Record<string, unknown>>;

/** The place of a row in its file. */
export interface RowRecord {
  readonly bytes: Uint8Array;
  readonly start: number;
  /** Behind its last byte. */
  readonly end: number;
  /** Its first line, counted from 1. */
  readonly line: number;
}

/** An opened file of rows. */
export interface RowFormat {
  /** The records that are rows, in their order; `bytes` are valid until the next one is taken. */
  records(): Iterable<RowRecord>;
  /** @throws BadRow */
  parse(bytes: Uint8Array): Row;
}

/** Reads a format; may look at the beginning of the file. */
export type OpenFormat = (source: ByteSource) => RowFormat;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @throws BadRow for bytes that are not UTF-8 */
export function textOf(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new BadRow(
      'it is not UTF-8 throughout',
      'Save the file as UTF-8; a part of it may come from a file in another encoding.',
    );
  }
}
