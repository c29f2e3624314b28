/** Reads safetensors files: an 8-byte header length, a JSON header, then the tensors' bytes. */
import { constants } from 'node:buffer';
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { OnnxLoraError } from '../errors.js';
import { type DataTypeName, isConvertible, toFloat32, toFloat64 } from '../onnx/dtype.js';
import { show } from './json.js';
import {
  codeByDtype,
  invalid,
  invalidTensor,
  LENGTH_BYTES,
  MAX_HEADER_BYTES,
  readHeader,
  type SafetensorsEntry,
  type SafetensorsHeader,
} from './safetensors-header.js';

/** Capacity of one array of this runtime. */
const MAX_ARRAY_BYTES = constants.MAX_LENGTH;

/** `readSync` takes a length of at most 2^31 - 1. */
const MAX_READ_BYTES = 2 ** 30;

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
    return opened(source);
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
  return opened({
    label,
    size: bytes.length,
    read: (offset, length) => bytes.subarray(offset, offset + length),
    close: () => {},
  });
}

interface Source {
  readonly label: string;
  readonly size: number;
  read(offset: number, length: number): Uint8Array;
  close(): void;
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

function opened(source: Source): SafetensorsFile {
  const headerBytes = readHeaderLength(source);
  const dataStart = LENGTH_BYTES + headerBytes;
  const bytes = source.read(LENGTH_BYTES, headerBytes);
  const header = readHeader(source.label, bytes, source.size - dataStart);
  return new OpenSafetensors(source, dataStart, header);
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

class OpenSafetensors implements SafetensorsFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  readonly #source: Source;
  readonly #dataStart: number;

  constructor(source: Source, dataStart: number, { metadata, tensors }: SafetensorsHeader) {
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
