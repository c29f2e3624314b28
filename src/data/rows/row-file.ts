/** A file of rows of any size: read once to find the rows, then row by row. */
import { extname } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../../errors.js';
import type { ByteSource } from '../../onnx/byte-source.js';
import { FileSource } from '../../onnx/source.js';
import type { WorkOptions } from '../../onnx/write.js';
import type { RowExtension } from '../data-kind.js';
import { BadRow } from './bad-row.js';
import { separatedValues } from './csv.js';
import { jsonLines } from './jsonl.js';
import { type UnpackedFile, unpackParquet } from './parquet/unpack.js';
import type { OpenFormat, Row, RowFormat, RowRecord } from './row.js';
import { RowIndex } from './row-index.js';

const PARQUET = '.parquet';

const formats: Readonly<Record<string, OpenFormat>> = {
  '.jsonl': jsonLines,
  '.ndjson': jsonLines,
  '.csv': separatedValues(','),
  '.tsv': separatedValues('\t'),
} satisfies Record<Exclude<RowExtension, typeof PARQUET>, OpenFormat>;

export interface RowFileOptions extends WorkOptions {
  /** Leave bad rows out, and count them. */
  readonly skipBadRows?: boolean | undefined;
  readonly onNote?: ((text: string) => void) | undefined;
}

// Often enough for a bar, and for a signal to be noticed.
const ROWS_PER_BREATH = 2048;

const READ_BYTES = 2 ** 20;
const NEWLINE = 10;

/** Skipped rows that are named one by one. */
const NAMED = 3;

export class RowFile {
  /** Rows that were left out. */
  skipped = 0;
  private readonly index = new RowIndex();

  private constructor(
    /** Its name in messages: the path. */
    readonly label: string,
    private readonly source: ByteSource,
    private readonly format: RowFormat,
    private readonly unpacked: UnpackedFile | undefined,
  ) {}

  /**
   * Reads the file from its first row to its last, and remembers where they are.
   * @param check called with every row; throws a BadRow for one that is not usable
   * @throws OnnxLoraError `invalid-data` naming file and line of the first bad row, or where no row is
   * left; `file-not-found`, `not-a-file`, `io`, `aborted`
   */
  static async open(
    path: string,
    check: (row: Row) => void,
    options: RowFileOptions = {},
  ): Promise<RowFile> {
    const extension = extname(path).toLowerCase();
    refuseEmpty(path);
    const unpacked = extension === PARQUET ? await unpackParquet(path, options) : undefined;
    const source = new FileSource(unpacked?.path ?? path);
    try {
      const open = formats[extension] ?? jsonLines;
      const file = new RowFile(path, source, open(source), unpacked);
      await file.read(check, options);
      return file;
    } catch (error) {
      source.close();
      unpacked?.remove();
      throw error;
    }
  }

  get size(): number {
    return this.index.size;
  }

  /**
   * Reads a row from the file.
   * @param use what to do with it; it was checked
   * @throws OnnxLoraError `io` where the file is another one than when it was opened
   */
  at<T>(number: number, use: (row: Row) => T): T {
    const start = this.index.start(number);
    const bytes = this.source.read(start, start + this.index.length(number));
    try {
      return use(this.format.parse(bytes));
    } catch (error) {
      throw this.changed(number, error);
    }
  }

  /** A row in words: file and line. Counts lines, so it is for messages only. */
  placeOf(number: number): string {
    const end = this.index.start(number);
    let line = 1;
    for (let at = 0; at < end; at += READ_BYTES) {
      const bytes = this.source.read(at, Math.min(end, at + READ_BYTES));
      for (const byte of bytes) if (byte === NEWLINE) line++;
    }
    return this.place(line);
  }

  private place(line: number): string {
    return this.unpacked ? `${this.label}, row ${line}` : `${this.label}:${line}`;
  }

  /** Length of a row in bytes. */
  lengthOf(number: number): number {
    return this.index.length(number);
  }

  close(): void {
    this.source.close();
    this.unpacked?.remove();
  }

  private async read(check: (row: Row) => void, options: RowFileOptions): Promise<void> {
    let count = 0;
    for (const record of this.format.records()) {
      if (count++ % ROWS_PER_BREATH === 0) await this.breathe(record.start, options);
      this.take(record, check, options);
    }
    if (this.skipped > NAMED)
      options.onNote?.(`${this.label}: ${this.skipped} bad rows are left out`);
    if (this.size > 0) return;
    const found =
      count === 0
        ? 'it holds no rows, only blank lines or the names of fields'
        : `all of its ${count} rows are bad`;
    throw new OnnxLoraError('invalid-data', `${this.label}: ${found}, expected some`);
  }

  private take(
    { bytes, start, end, line }: RowRecord,
    check: (row: Row) => void,
    { skipBadRows, onNote }: RowFileOptions,
  ): void {
    try {
      check(this.format.parse(bytes));
      this.index.add(start, end - start);
    } catch (error) {
      if (!(error instanceof BadRow)) throw error;
      const problem = `${this.place(line)}: ${error.message}`;
      if (!skipBadRows) throw badRow(problem, error);
      if (++this.skipped <= NAMED) onNote?.(`left out: ${problem}`);
    }
  }

  private async breathe(done: number, { signal, onProgress }: RowFileOptions): Promise<void> {
    const total = this.source.size;
    onProgress?.({ phase: 'reading the rows', done, total, unit: 'bytes' });
    await setImmediate();
    if (signal?.aborted) throw new OnnxLoraError('aborted', `interrupted reading ${this.label}`);
  }

  private changed(row: number, cause: unknown): unknown {
    if (!(cause instanceof BadRow)) return cause;
    return new OnnxLoraError(
      'io',
      `${this.label} has changed since it was opened: at byte ${this.index.start(row)}, ${cause.message}`,
      { hint: 'Is another program writing the file? Run again when it is done.' },
    );
  }
}

/** Such a file is of no format at all. */
function refuseEmpty(path: string): void {
  const source = new FileSource(path);
  const { size } = source;
  source.close();
  if (size > 0) return;
  throw new OnnxLoraError('invalid-data', `${path}: it holds no rows, for it is empty (0 bytes)`, {
    hint: 'Was it written to the end? Every sample is one row of it.',
  });
}

function badRow(problem: string, { hint }: BadRow): OnnxLoraError {
  const skip = 'Correct the row, or leave out all that are bad with `skipBadRows: true`.';
  return new OnnxLoraError('invalid-data', problem, { hint: hint ? `${hint}\n${skip}` : skip });
}
