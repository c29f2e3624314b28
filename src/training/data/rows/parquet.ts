/** Parquet, unpacked once into JSON lines: single rows of it cannot be read without their whole group. */

import { once } from 'node:events';
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
  type SchemaTree,
} from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { OnnxLoraError } from '../../../errors.js';
import { FileSource } from '../../../onnx/source.js';
import type { WorkOptions } from '../../../onnx/write.js';

/** Rows in memory at a time. */
const ROWS = 2 ** 15;

export interface UnpackedFile {
  readonly path: string;
  remove(): void;
}

/**
 * Writes the rows of a Parquet file as JSON lines to a temporary file, a row a line, without columns of
 * bytes.
 * @throws OnnxLoraError `invalid-data` for a file that is no Parquet file, and those of reading
 */
export async function unpackParquet(path: string, options: WorkOptions): Promise<UnpackedFile> {
  const source = new FileSource(path);
  const folder = mkdtempSync(join(tmpdir(), 'onnx-lora-rows-'));
  const unpacked = { path: join(folder, 'rows.jsonl'), remove: () => removeFolder(folder) };
  try {
    await unpack(bufferOf(source), unpacked.path, options);
    return unpacked;
  } catch (error) {
    unpacked.remove();
    if (error instanceof OnnxLoraError) throw error;
    throw new OnnxLoraError(
      'invalid-data',
      `${path} is no Parquet file that can be read: ${(error as Error).message}`,
    );
  } finally {
    source.close();
  }
}

function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

function bufferOf(source: FileSource): AsyncBuffer {
  return {
    byteLength: source.size,
    slice: (start, end = source.size) => source.read(start, end).buffer as ArrayBuffer,
  };
}

async function unpack(file: AsyncBuffer, target: string, options: WorkOptions): Promise<void> {
  const metadata = await parquetMetadataAsync(file);
  const columns = textColumns(parquetSchema(metadata));
  const total = Number(metadata.num_rows);
  const output = createWriteStream(target);
  try {
    for (const [rowStart, rowEnd] of ranges(metadata)) {
      if (options.signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted unpacking rows');
      options.onProgress?.({ phase: 'unpacking the rows', done: rowStart, total, unit: 'samples' });
      const rows = await parquetReadObjects({
        file,
        metadata,
        columns,
        rowStart,
        rowEnd,
        compressors,
      });
      const lines = rows.map((row) => `${JSON.stringify(row, plain)}\n`);
      if (!output.write(lines.join(''))) await once(output, 'drain');
    }
  } finally {
    output.end();
    await once(output, 'close');
  }
}

/** Parts of row groups, for groups may have any number of rows. */
function* ranges({ row_groups }: FileMetaData): Generator<[start: number, end: number]> {
  let first = 0;
  for (const { num_rows } of row_groups) {
    const end = first + Number(num_rows);
    for (let start = first; start < end; start += ROWS) yield [start, Math.min(end, start + ROWS)];
    first = end;
  }
}

function textColumns({ children }: SchemaTree): string[] {
  return children.filter((column) => !holdsBytes(column)).map(({ element }) => element.name);
}

/** Bytes that are no text: images, sounds. */
function holdsBytes({ element, children }: SchemaTree): boolean {
  const { type, converted_type, logical_type } = element;
  return children.some(holdsBytes) || (type === 'BYTE_ARRAY' && !converted_type && !logical_type);
}

/** Integers of 64 bits as numbers. */
function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value;
}
