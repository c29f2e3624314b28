/** The rows of a Parquet file, some at a time. */
import { type FileMetaData, parquetMetadata, parquetSchema, type SchemaTree } from 'hyparquet';
import { assembleNested } from 'hyparquet/src/assemble.js';
import { DEFAULT_PARSERS } from 'hyparquet/src/convert.js';
import { getTreePath } from 'hyparquet/src/schema.js';
import type { DecodedArray } from 'hyparquet/src/types.js';
import type { ByteSource } from '../../../onnx/byte-source.js';
import { READ_MS, withinTime } from '../../../time-limit.js';
import { type Codecs, codecsFor } from './codecs.js';
import { ColumnReader, Open } from './column.js';
import { limit, limitRows, MAX_FOOTER_BYTES } from './limits.js';

/** In memory at a time, beside the pages that they are from. */
const ROWS = 1024;

type Group = FileMetaData['row_groups'][number];

export interface ParquetRows {
  /** The number that the file claims to have. */
  readonly total: number;
  rows(): Generator<readonly object[]>;
}

/**
 * Opens the rows of a file, without columns of bytes.
 * @throws OnnxLoraError `invalid-data` for more than is read, `unsupported` for a codec; other errors for a
 * file that is damaged
 */
export async function parquetRows(file: ByteSource): Promise<ParquetRows> {
  const metadata = readFooter(file);
  const tree = parquetSchema(metadata);
  const columns = tree.children.filter((column) => !holdsBytes(column));
  if (columns.length === 0) throw new RangeError('none of its columns holds texts or numbers');
  const groups = metadata.row_groups.filter(({ num_rows }) => Number(num_rows) > 0);
  const total = groups.reduce((sum, { num_rows }) => sum + Number(num_rows), 0);
  const shortest = columns.reduce((sum, { element }) => sum + element.name.length + 5, 2);
  limitRows(total * shortest, file.size);
  const codecs = await codecsFor(new Set(groups.flatMap((group) => codecsOf(group, columns))));
  return {
    total,
    *rows() {
      for (const group of groups) yield* rowsOf(file, group, tree, columns, codecs);
    },
  };
}

const TAIL_BYTES = 8;

function readFooter(file: ByteSource): FileMetaData {
  if (file.size < 12) throw new RangeError('it is too short');
  const tail = file.read(file.size - TAIL_BYTES, file.size);
  const length = new DataView(tail.buffer).getUint32(0, true);
  const magic = Buffer.from(tail).toString('latin1', 4);
  if (magic !== 'PAR1')
    throw new RangeError(`it ends in ${JSON.stringify(magic)}, expected "PAR1"`);
  limit('the size of its footer', length, MAX_FOOTER_BYTES);
  const start = file.size - TAIL_BYTES - length;
  if (start < 0) throw new RangeError('its footer is longer than the file');
  const bytes = file.read(start, file.size);
  return withinTime(READ_MS, () => parquetMetadata(bytes.buffer as ArrayBuffer));
}

function codecsOf(group: Group, columns: readonly SchemaTree[]): string[] {
  const names = new Set(columns.map(({ element }) => element.name));
  return group.columns.flatMap(({ meta_data: column }) => {
    return column && names.has(column.path_in_schema[0]!) ? [column.codec] : [];
  });
}

function* rowsOf(
  file: ByteSource,
  group: Group,
  tree: SchemaTree,
  columns: readonly SchemaTree[],
  codecs: Codecs,
): Generator<readonly object[]> {
  const open = new Open();
  const fields = columns.map((column) => fieldOf(file, group, tree, column, codecs, open));
  const total = Number(group.num_rows);
  for (let start = 0; start < total; start += ROWS) {
    const count = Math.min(ROWS, total - start);
    const values = fields.map((take) => take(count));
    yield Array.from({ length: count }, (_, row) =>
      Object.fromEntries(columns.map(({ element }, i) => [element.name, values[i]![row]])),
    );
  }
}

/** A column, or what several of them make together. */
function fieldOf(
  file: ByteSource,
  group: Group,
  tree: SchemaTree,
  column: SchemaTree,
  codecs: Codecs,
  open: Open,
): (count: number) => ArrayLike<unknown> {
  const readers = leavesOf(column).map((leaf) => {
    const found = group.columns.find(({ meta_data }) => isAt(meta_data?.path_in_schema, leaf.path));
    if (!found?.meta_data || found.file_path) {
      throw new RangeError(`a group lacks the column ${leaf.path.join('.')}`);
    }
    const path = getTreePath(tree, leaf.path);
    return { path: leaf.path, reader: new ColumnReader(file, found.meta_data, path, codecs, open) };
  });
  if (column.children.length === 0) return (count) => readers[0]!.reader.take(count);
  return (count) => {
    const parts = new Map<string, DecodedArray>();
    for (const { path, reader } of readers) parts.set(path.join('.'), reader.take(count));
    withinTime(READ_MS, () => assembleNested(parts, column, DEFAULT_PARSERS));
    const made = parts.get(column.path.join('.'));
    if (made?.length === count) return made;
    throw new RangeError(`the parts of ${column.path.join('.')} do not fit one another`);
  };
}

function leavesOf(column: SchemaTree): SchemaTree[] {
  return column.children.length === 0 ? [column] : column.children.flatMap(leavesOf);
}

function isAt(path: readonly string[] | undefined, wanted: readonly string[]): boolean {
  return path?.length === wanted.length && wanted.every((name, i) => path[i] === name);
}

/** Bytes other than text: images, sounds. Kinds that pack many values into the bytes of one, too. */
function holdsBytes({ element, children }: SchemaTree): boolean {
  const { type, converted_type, logical_type } = element;
  if (PACKED.includes(logical_type?.type ?? '') || converted_type === 'BSON') return true;
  return children.some(holdsBytes) || (type === 'BYTE_ARRAY' && !converted_type && !logical_type);
}

const PACKED: readonly string[] = ['VARIANT', 'GEOMETRY', 'GEOGRAPHY', 'BSON'];
