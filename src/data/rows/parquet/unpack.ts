/** Parquet, unpacked once into JSON lines: single rows of it cannot be read without decoding their page. */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../../../errors.js';
import { FileSource } from '../../../onnx/source.js';
import type { WorkOptions } from '../../../onnx/write.js';
import { parquetRows } from './groups.js';
import { limitRows, MAX_ROW_CHARACTERS } from './limits.js';

/** Written at a time. */
const WRITE_CHARACTERS = 2 ** 20;

export interface UnpackedFile {
  readonly path: string;
  remove(): void;
}

/**
 * Writes the rows of a Parquet file as JSON lines to a temporary file, a row a line, without columns of
 * bytes.
 * @throws OnnxLoraError `invalid-data` for a file that is not a Parquet file, or expands to more than its size
 * can hold; `io` where there is no room for the temporary file; and those of reading
 */
export async function unpackParquet(path: string, options: WorkOptions): Promise<UnpackedFile> {
  const source = new FileSource(path);
  try {
    const folder = inTemporary(() => mkdtempSync(join(tmpdir(), 'onnx-lora-rows-')));
    const remove = () => rmSync(folder, { recursive: true, force: true });
    const unpacked = { path: join(folder, 'rows.jsonl'), remove };
    try {
      await unpack(source, unpacked.path, options);
      return unpacked;
    } catch (error) {
      remove();
      throw named(path, error);
    }
  } finally {
    source.close();
  }
}

function named(path: string, error: unknown): OnnxLoraError {
  const { message } = error as Error;
  if (!(error instanceof OnnxLoraError)) {
    const problem = `${path} is not a readable Parquet file: ${message}`;
    return new OnnxLoraError('invalid-data', problem, { cause: error });
  }
  if (error.code !== 'invalid-data' && error.code !== 'unsupported') return error;
  return new OnnxLoraError(error.code, `${path}: ${message}`, error);
}

async function unpack(source: FileSource, target: string, options: WorkOptions): Promise<void> {
  const { total, rows } = await parquetRows(source);
  const file = inTemporary(() => openSync(target, 'wx'));
  let [done, written] = [0, 0];
  try {
    for (const part of rows()) {
      // Lets signals in.
      await setImmediate();
      if (options.signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted unpacking rows');
      options.onProgress?.({ phase: 'unpacking the rows', done, total, unit: 'samples' });
      let lines = '';
      for (const row of part) {
        lines += lineOf(row);
        if (lines.length < WRITE_CHARACTERS) continue;
        written += write(file, lines);
        lines = '';
        limitRows(written, source.size);
      }
      written += write(file, lines);
      limitRows(written, source.size);
      done += part.length;
    }
  } finally {
    closeSync(file);
  }
}

function lineOf(row: object): string {
  let rest = MAX_ROW_CHARACTERS;
  const line = JSON.stringify(row, (key, value: unknown) => {
    rest -= key.length + 1 + (typeof value === 'string' ? value.length : 0);
    if (rest >= 0) return typeof value === 'bigint' ? Number(value) : value;
    throw new OnnxLoraError(
      'invalid-data',
      `a row has more than ${MAX_ROW_CHARACTERS} characters as JSON`,
    );
  });
  return `${line}\n`;
}

function write(file: number, lines: string): number {
  const bytes = Buffer.from(lines);
  for (let at = 0; at < bytes.length; ) {
    at += inTemporary(() => writeSync(file, bytes, at));
  }
  return bytes.length;
}

/** @throws OnnxLoraError `io` in the place of a system error */
function inTemporary<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new OnnxLoraError('io', `rows cannot be unpacked: ${(error as Error).message}`, {
      hint: `Rows of Parquet files are unpacked into the temporary folder, ${tmpdir()}: free some space, or name another folder with TMPDIR (TEMP on Windows).`,
      cause: error,
    });
  }
}
