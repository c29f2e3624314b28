/** The safetensors file format: an 8-byte header length, a JSON header, then the tensors' bytes. */
import { constants } from 'node:buffer';
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { OnnxLoraError } from '../errors.js';
import {
  byteLength,
  type DataTypeName,
  dataTypes,
  isConvertible,
  toFloat32,
  toFloat64,
} from '../onnx/dtype.js';
import { type Piece, pieceLength, totalLength } from '../onnx/edit.js';
import { JsonProblem, parseStrictJson, show } from './json.js';

/** Limit of the reference implementation, so no writer exceeds it either. */
const MAX_HEADER_BYTES = 100_000_000;

/** A header needs 3 levels; the rest is room for fields that are ignored, at a bounded cost. */
const MAX_HEADER_DEPTH = 16;

/** Capacity of one array of this runtime. */
const MAX_ARRAY_BYTES = constants.MAX_LENGTH;

/** `readSync` takes a length of at most 2^31 - 1. */
const MAX_READ_BYTES = 2 ** 30;

const LENGTH_BYTES = 8;
const METADATA_KEY = '__metadata__';

const dtypeOfCode: Readonly<Record<string, DataTypeName>> = {
  BOOL: 'bool',
  U8: 'uint8',
  I8: 'int8',
  U16: 'uint16',
  I16: 'int16',
  U32: 'uint32',
  I32: 'int32',
  U64: 'uint64',
  I64: 'int64',
  F16: 'float16',
  BF16: 'bfloat16',
  F32: 'float32',
  F64: 'float64',
  C64: 'complex64',
  F8_E4M3: 'float8e4m3fn',
  F8_E4M3FNUZ: 'float8e4m3fnuz',
  F8_E5M2: 'float8e5m2',
  F8_E5M2FNUZ: 'float8e5m2fnuz',
  F8_E8M0: 'float8e8m0',
  F4: 'float4e2m1',
};

const dtypeByCode = new Map(Object.entries(dtypeOfCode));
const codeByDtype = new Map(Object.entries(dtypeOfCode).map(([code, dtype]) => [dtype, code]));
const bitsByDtype = new Map<string, number>(
  Object.values(dataTypes).map(({ name, bits }) => [name, bits]),
);

/** The place of a tensor: `start` and `end` count bytes from the end of the header, as it does. */
export interface SafetensorsEntry {
  /** Type of the numbers. */
  readonly dtype: DataTypeName;
  /** Its shape. */
  readonly shape: readonly number[];
  /** First byte in the file. */
  readonly start: number;
  /** The byte after the last one. */
  readonly end: number;
}

/**
 * The tensors of a safetensors file, read on demand. Every `read` throws OnnxLoraError
 * `invalid-adapter` for a name the file does not have and for a file that changed meanwhile.
 */
export interface SafetensorsFile {
  /** The texts of `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of their bytes in the file. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  /**
   * The raw little-endian bytes, or those from `start` to `end` (exclusive) of them; a view if the
   * file was parsed from memory.
   */
  read(name: string, start?: number, end?: number): Uint8Array;
  /**
   * F16 and BF16 widened, F64 rounded to floats; `invalid-adapter` for any type but these and F32.
   * May be a view as well.
   */
  readFloat32(name: string): Float32Array;
  /** As `readFloat32`, but always exact. */
  readFloat64(name: string): Float64Array;
  /** Closes the file, which cannot be read afterwards. May be called again. */
  close(): void;
}

/** A tensor to write: `data` is its raw little-endian bytes. */
export interface SafetensorsTensor<Data extends Piece = Uint8Array> {
  readonly name: string;
  readonly dtype: DataTypeName;
  readonly shape: readonly number[];
  readonly data: Data;
}

/**
 * Opens a safetensors file and reads its header; tensors are read when asked for. As strict as the
 * reference implementation, and it also refuses keys that appear twice.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `io`, or `invalid-adapter` for anything
 * wrong with the header.
 * @example
 * ```ts
 * import { openSafetensors } from 'onnx-lora';
 *
 * const file = openSafetensors('german.safetensors');
 * for (const [name, { dtype, shape }] of file.tensors) {
 *   if (dtype === 'float32') console.log(name, shape, file.readFloat32(name)[0]);
 * }
 * file.close();
 * ```
 */
export function openSafetensors(path: string): SafetensorsFile {
  const source = openFile(path);
  try {
    return readHeader(source);
  } catch (error) {
    source.close();
    throw error;
  }
}

/**
 * Reads a safetensors file that is in memory, with the checks of {@link openSafetensors}. What is
 * read are views of `bytes` where possible.
 * @param label names the bytes in errors.
 * @throws OnnxLoraError `invalid-adapter` for anything wrong with the header.
 */
export function parseSafetensors(bytes: Uint8Array, label = 'safetensors data'): SafetensorsFile {
  return readHeader({
    label,
    size: bytes.length,
    read: (offset, length) => bytes.subarray(offset, offset + length),
    close: () => {},
  });
}

/**
 * A safetensors file with the tensors in the order given, for writeFiles. Other readers map tensors
 * into memory, so pass wide types before narrow ones if they should be aligned there.
 * @throws OnnxLoraError `invalid-adapter` for a name that is given twice or reserved, a type
 * safetensors does not have, or a length that does not fit the shape.
 */
export function safetensorsPieces(
  tensors: readonly SafetensorsTensor<Piece>[],
  metadata?: Readonly<Record<string, string>>,
): Piece[] {
  const header = encodeHeader(tensors, metadata);
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
  return [length, header, ...tensors.map(({ data }) => data)];
}

/** The same as bytes, for tensors that are in memory. */
export function encodeSafetensors(
  tensors: Iterable<SafetensorsTensor>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const pieces = safetensorsPieces([...tensors], metadata);
  const total = totalLength(pieces);
  if (total > MAX_ARRAY_BYTES) {
    throw invalid('safetensors output', `has ${total} bytes, at most ${MAX_ARRAY_BYTES} fit`);
  }
  return new Uint8Array(Buffer.concat(pieces as Uint8Array[]));
}

interface Source {
  readonly label: string;
  readonly size: number;
  read(offset: number, length: number): Uint8Array;
  close(): void;
}

function invalid(label: string, problem: string, hint?: string, cause?: unknown): OnnxLoraError {
  return new OnnxLoraError('invalid-adapter', `${label}: ${problem}`, { hint, cause });
}

function invalidTensor(label: string, name: string, problem: string): OnnxLoraError {
  return invalid(label, `tensor ${show(name)} ${problem}`);
}

function openFile(path: string): Source {
  // Opening a pipe would wait for its other end.
  const found = attempt(path, () => statSync(path));
  if (!found.isFile()) {
    const kind = found.isDirectory() ? 'a directory' : 'not a regular file';
    throw new OnnxLoraError('not-a-file', `${path} is ${kind}, expected a safetensors file`);
  }
  const fd = attempt(path, () => openSync(path, 'r'));
  let open = true;
  return {
    label: path,
    size: attempt(path, () => fstatSync(fd)).size,
    read: (offset, length) => {
      if (!open) throw new OnnxLoraError('invalid-argument', `${path} is read after it was closed`);
      return attempt(path, () => readExactly(path, fd, offset, length));
    },
    close: () => {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

function attempt<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof OnnxLoraError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new OnnxLoraError('file-not-found', `${path} does not exist`, { cause: error });
    }
    throw new OnnxLoraError('io', `${path} cannot be read: ${code ?? error}`, { cause: error });
  }
}

function readExactly(path: string, fd: number, offset: number, length: number): Uint8Array {
  const result = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const wanted = Math.min(length - done, MAX_READ_BYTES);
    const read = readSync(fd, result, done, wanted, offset + done);
    if (read === 0) throw invalid(path, `ends ${length - done} bytes early, it changed while open`);
    done += read;
  }
  return result;
}

function readHeader(source: Source): SafetensorsFile {
  const headerBytes = readHeaderLength(source);
  const dataStart = LENGTH_BYTES + headerBytes;
  const text = decodeHeader(source.label, source.read(LENGTH_BYTES, headerBytes));
  const { [METADATA_KEY]: metadata, ...entries } = parseHeader(source.label, text);
  const dataBytes = source.size - dataStart;
  const tensors = parseEntries(source.label, entries, dataBytes);
  return new OpenSafetensors(source, dataStart, parseMetadata(source.label, metadata), tensors);
}

function readHeaderLength({ label, size, read }: Source): number {
  const first = read(0, Math.min(size, LENGTH_BYTES));
  const hint = hintFor(first);
  if (size < LENGTH_BYTES) {
    const problem = `has ${size} bytes, a safetensors file starts with an 8-byte header length`;
    throw invalid(label, problem, hint);
  }
  const length = new DataView(first.buffer, first.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    const problem = `says its header has ${length} bytes, at most ${MAX_HEADER_BYTES} are allowed`;
    throw invalid(label, problem, hint);
  }
  const available = size - LENGTH_BYTES;
  if (length > available) {
    const problem = `is cut short: its header has ${length} bytes, ${available} are left`;
    throw invalid(label, problem, hint);
  }
  return Number(length);
}

/** Files that people mistake for safetensors, by their first bytes. */
function hintFor(first: Uint8Array): string {
  const start = String.fromCharCode(...first);
  if (start.startsWith('version')) {
    return 'this looks like a Git LFS pointer: fetch the real file with `git lfs pull`';
  }
  if (start.startsWith('PK\x03\x04')) {
    return 'this looks like a zip or PyTorch file: save the adapter as safetensors';
  }
  return 'is it a safetensors file, and complete?';
}

function decodeHeader(label: string, bytes: Uint8Array): string {
  try {
    // A byte order mark is kept so that it is an error, as it is in the reference implementation.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw invalid(label, 'its header is not valid UTF-8', undefined, error);
  }
}

function parseHeader(label: string, text: string): Record<string, unknown> {
  if (!text.startsWith('{')) {
    throw invalid(label, `its header starts with ${show(text.charAt(0))}, expected "{"`);
  }
  try {
    return parseStrictJson(text, MAX_HEADER_DEPTH) as Record<string, unknown>;
  } catch (error) {
    if (!(error instanceof JsonProblem)) throw error;
    throw invalid(label, `its header ${error.message}`, undefined, error);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function parseMetadata(label: string, value: unknown): Record<string, string> {
  if (value === undefined || value === null) return {};
  const expected = `its ${METADATA_KEY} must map names to strings`;
  if (!isObject(value)) throw invalid(label, `${expected}, found ${show(value)}`);
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry === 'string') continue;
    throw invalid(label, `${expected}, found ${show(entry)} for ${show(key)}`);
  }
  return value as Record<string, string>;
}

function parseEntries(
  label: string,
  entries: Record<string, unknown>,
  dataBytes: number,
): Map<string, SafetensorsEntry> {
  const parsed = Object.entries(entries).map(
    ([name, value]) => [name, parseEntry(label, name, value)] as const,
  );
  parsed.sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  checkCoverage(label, parsed, dataBytes);
  return new Map(parsed);
}

function parseEntry(label: string, name: string, value: unknown): SafetensorsEntry {
  if (!isObject(value)) {
    throw invalidTensor(label, name, `must be described by an object, found ${show(value)}`);
  }
  const dtype = parseDtype(label, name, value.dtype);
  const shape = parseShape(label, name, value.shape);
  const [start, end] = parseOffsets(label, name, value.data_offsets);
  const expected = tensorBytes(label, name, dtype, shape);
  if (end - start !== expected) {
    const what = `${value.dtype} ${show(shape)} takes ${expected} bytes`;
    throw invalidTensor(label, name, `${what}, its data_offsets span ${end - start}`);
  }
  return { dtype, shape, start, end };
}

function parseDtype(label: string, name: string, value: unknown): DataTypeName {
  const dtype = typeof value === 'string' ? dtypeByCode.get(value) : undefined;
  if (dtype) return dtype;
  const known = [...dtypeByCode.keys()].join(', ');
  throw invalidTensor(label, name, `has dtype ${show(value)}, expected one of ${known}`);
}

function parseShape(label: string, name: string, value: unknown): number[] {
  if (Array.isArray(value) && value.every(isSize)) return value;
  const expected = 'expected an array of non-negative integers';
  throw invalidTensor(label, name, `has shape ${show(value)}, ${expected}`);
}

function parseOffsets(label: string, name: string, value: unknown): [number, number] {
  if (Array.isArray(value) && value.length === 2 && value.every(isSize)) {
    const [start, end] = value as [number, number];
    if (start <= end) return [start, end];
  }
  const expected = 'expected a start and an end no smaller, both non-negative integers';
  throw invalidTensor(label, name, `has data_offsets ${show(value)}, ${expected}`);
}

/** Refuses what the reference implementation does: sizes that overflow, tensors of half bytes. */
function tensorBytes(
  label: string,
  name: string,
  dtype: DataTypeName,
  shape: readonly number[],
): number {
  let count = 1;
  for (const size of shape) {
    count *= size;
    if (!Number.isSafeInteger(count)) break;
  }
  const bits = count * (bitsByDtype.get(dtype) as number);
  if (!Number.isSafeInteger(bits)) {
    throw invalidTensor(label, name, `has shape ${show(shape)}, which is too large`);
  }
  if (bits % 8 !== 0) {
    const problem = `has ${count} elements of ${dtype}, which do not fill whole bytes`;
    throw invalidTensor(label, name, problem);
  }
  return byteLength(dtype, count);
}

/** Bytes in no tensor could hide something; bytes in two tensors are an attack or a mistake. */
function checkCoverage(
  label: string,
  sorted: readonly (readonly [string, SafetensorsEntry])[],
  dataBytes: number,
): void {
  let covered = 0;
  for (const [name, { start, end }] of sorted) {
    if (end > dataBytes) {
      const problem = `ends at byte ${end} of the data, which has ${dataBytes}`;
      throw invalid(label, `tensor ${show(name)} ${problem}`, 'is the file complete?');
    }
    if (start !== covered) {
      const problem = start < covered ? 'overlaps another tensor' : 'leaves a hole before it';
      const where = `it starts at byte ${start}, expected ${covered}`;
      throw invalidTensor(label, name, `${problem}: ${where}`);
    }
    covered = end;
  }
  if (covered !== dataBytes) {
    throw invalid(label, `its tensors take ${covered} bytes, its data has ${dataBytes}`);
  }
}

class OpenSafetensors implements SafetensorsFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  readonly #source: Source;
  readonly #dataStart: number;

  constructor(
    source: Source,
    dataStart: number,
    metadata: Record<string, string>,
    tensors: Map<string, SafetensorsEntry>,
  ) {
    this.#source = source;
    this.#dataStart = dataStart;
    this.metadata = metadata;
    this.tensors = tensors;
  }

  read(name: string, start = 0, end?: number): Uint8Array {
    const entry = this.#entry(name);
    const stop = end === undefined ? entry.end : entry.start + end;
    const part = { ...entry, start: entry.start + start, end: stop };
    if (part.start > stop || stop > entry.end) {
      throw new RangeError(`bytes ${start} to ${end} of ${show(name)}, which has fewer`);
    }
    return this.#readEntry(name, part);
  }

  readFloat32(name: string): Float32Array {
    const { dtype, bytes, count } = this.#readFloats(name);
    return toFloat32(dtype, bytes, count);
  }

  readFloat64(name: string): Float64Array {
    const { dtype, bytes, count } = this.#readFloats(name);
    return toFloat64(dtype, bytes, count);
  }

  close(): void {
    this.#source.close();
  }

  #entry(name: string): SafetensorsEntry {
    const entry = this.tensors.get(name);
    if (entry) return entry;
    const found = `it has ${this.tensors.size} tensors`;
    throw invalid(this.#source.label, `has no tensor ${show(name)}, ${found}`);
  }

  #readEntry(name: string, { start, end }: SafetensorsEntry): Uint8Array {
    const length = end - start;
    if (length > MAX_ARRAY_BYTES) {
      const problem = `has ${length} bytes, at most ${MAX_ARRAY_BYTES} can be read`;
      throw invalidTensor(this.#source.label, name, problem);
    }
    return this.#source.read(this.#dataStart + start, length);
  }

  #readFloats(name: string): { dtype: DataTypeName; bytes: Uint8Array; count: number } {
    const entry = this.#entry(name);
    const { dtype, shape } = entry;
    if (!isConvertible(dtype)) {
      const code = codeByDtype.get(dtype);
      const problem = `has dtype ${code}, expected F32, F64, F16 or BF16`;
      throw invalidTensor(this.#source.label, name, problem);
    }
    const count = shape.reduce((product, size) => product * size, 1);
    return { dtype, bytes: this.#readEntry(name, entry), count };
  }
}

function encodeHeader(
  tensors: readonly SafetensorsTensor<Piece>[],
  metadata: Readonly<Record<string, string>> | undefined,
): Uint8Array {
  // Joined by hand: an object would put names that look like numbers first.
  const fields = metadata ? [`"${METADATA_KEY}":${JSON.stringify(metadata)}`] : [];
  const names = new Set<string>();
  let offset = 0;
  for (const tensor of tensors) {
    addName(names, tensor.name);
    fields.push(`${JSON.stringify(tensor.name)}:${encodeEntry(tensor, offset)}`);
    offset += pieceLength(tensor.data);
  }
  return padHeader(new TextEncoder().encode(`{${fields.join(',')}}`));
}

function addName(names: Set<string>, name: string): void {
  const label = 'safetensors output';
  if (name === METADATA_KEY) throw invalidTensor(label, name, 'has the name of the metadata');
  if (names.has(name)) throw invalidTensor(label, name, 'is given twice');
  names.add(name);
}

function encodeEntry(
  { name, dtype, shape, data }: SafetensorsTensor<Piece>,
  offset: number,
): string {
  const label = 'safetensors output';
  const code = codeByDtype.get(dtype);
  if (!code) throw invalidTensor(label, name, `has type ${dtype}, which safetensors lacks`);
  const expected = tensorBytes(label, name, dtype, parseShape(label, name, shape));
  const length = pieceLength(data);
  if (length !== expected) {
    const what = `${code} ${show(shape)} takes ${expected} bytes`;
    throw invalidTensor(label, name, `${what}, its data has ${length}`);
  }
  return JSON.stringify({ dtype: code, shape, data_offsets: [offset, offset + length] });
}

/** Readers that map the file expect the data at a multiple of eight. */
function padHeader(header: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil(header.length / 8) * 8).fill(0x20);
  if (padded.length > MAX_HEADER_BYTES) {
    const problem = `its header has ${padded.length} bytes, at most ${MAX_HEADER_BYTES} are allowed`;
    throw invalid('safetensors output', problem);
  }
  padded.set(header);
  return padded;
}
