/** The .npz format of NumPy: a zip file of .npy arrays. */
import { inflateRawSync } from 'node:zlib';
import { type Entry, getFileNameLowLevel, openPromise, type ZipFile } from 'yauzl';
import { OnnxLoraError } from '../errors.js';
import type { ByteSource } from '../onnx/byte-source.js';
import type { DataTypeName } from '../onnx/dtype.js';
import { FileSource, MemorySource } from '../onnx/source.js';
import { crc32 } from './crc32.js';
import { MAX_NPY_PREFIX, parseNpyHeader } from './npy.js';

/** All that compressed arrays may take together: they are kept in memory. */
const MAX_INFLATED_BYTES = 2 ** 31;

/** Deflate cannot do better: a match of 258 bytes takes two bits at least. */
const MAX_DEFLATE_RATIO = 1032;

const STORED = 0;
const DEFLATED = 8;

export interface NpzArray {
  readonly dtype: DataTypeName;
  readonly shape: readonly number[];
}

/** The arrays of an .npz file, by their names without `.npy`. */
export interface NpzFile {
  readonly tensors: ReadonlyMap<string, NpzArray>;
  /** The raw little-endian bytes, or those from `start` to `end` (exclusive) of them. */
  read(name: string, start?: number, end?: number): Uint8Array;
  /** Closes the file, which cannot be read afterwards. May be called again. */
  close(): void;
}

/**
 * Opens an .npz file. Arrays that `numpy.savez` stored are read when asked for; those that
 * `numpy.savez_compressed` deflated are inflated now, checked, and take their full size in memory
 * until the file is closed.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `io`; `invalid-data` for a file that is not a
 * complete zip file of .npy arrays, for arrays that {@link parseNpyHeader} refuses, and for more
 * than 2 GiB of compressed arrays
 */
export async function openNpz(path: string): Promise<NpzFile> {
  const file = new FileSource(path);
  try {
    return new OpenNpz(file, await readMembers(file));
  } catch (error) {
    file.close();
    throw error;
  }
}

/** An array and the place of its elements. */
interface Member extends NpzArray {
  readonly source: ByteSource;
  readonly start: number;
  readonly end: number;
}

class OpenNpz implements NpzFile {
  private closed = false;

  constructor(
    private readonly file: ByteSource,
    readonly tensors: ReadonlyMap<string, Member>,
  ) {}

  read(name: string, start = 0, end?: number): Uint8Array {
    const { label } = this.file;
    if (this.closed) {
      throw new OnnxLoraError('invalid-argument', `${label} is read after it was closed`);
    }
    const member = this.tensors.get(name);
    if (!member) throw invalid(label, `has no array ${name}`);
    const size = member.end - member.start;
    const stop = end ?? size;
    if (start > stop || stop > size) {
      throw new RangeError(`bytes ${start} to ${end} of ${name}, which has fewer`);
    }
    return member.source.read(member.start + start, member.start + stop);
  }

  close(): void {
    this.closed = true;
    this.file.close();
  }
}

async function readMembers(file: FileSource): Promise<Map<string, Member>> {
  const zip = await asZip(file, () => openPromise(file.path, { decodeStrings: false }));
  try {
    const members = new Map<string, Member>();
    let inflated = 0;
    for await (const entry of entriesOf(file, zip)) {
      const name = nameOf(entry);
      if (members.has(name)) throw invalid(file.label, `has two arrays ${name}`);
      if (entry.compressionMethod === DEFLATED) inflated += entry.uncompressedSize;
      checkInflated(file, entry, name, inflated);
      const { fileDataStart } = await asZip(file, () =>
        zip.readLocalFileHeaderPromise(entry, { minimal: true }),
      );
      members.set(name, readMember(file, entry, name, fileDataStart));
    }
    return members;
  } finally {
    zip.close();
  }
}

async function* entriesOf(file: FileSource, zip: ZipFile): AsyncGenerator<Entry> {
  const entries = zip.eachEntry();
  for (;;) {
    const { done, value } = await asZip(file, () => entries.next());
    if (done) return;
    yield value;
  }
}

/** Runs a step of the zip reader, whose errors say what is wrong with the file. */
async function asZip<T>(file: FileSource, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    const reason = (error as Error).message;
    throw invalid(
      file.label,
      `is not a readable .npz file: ${reason}`,
      'Is the file complete?',
      error,
    );
  }
}

/** Names are keys here, never paths, so none is refused for looking like a dangerous path. */
function nameOf(entry: Entry): string {
  const { generalPurposeBitFlag, fileNameRaw, extraFields } = entry;
  const name = getFileNameLowLevel(generalPurposeBitFlag, fileNameRaw, extraFields, true);
  return name.replace(/\.npy$/, '');
}

/** Before anything is inflated: declared sizes may lie, and a small file may unpack to a huge one. */
function checkInflated(file: FileSource, entry: Entry, name: string, inflated: number): void {
  if (entry.compressionMethod !== DEFLATED) return;
  const { compressedSize, uncompressedSize } = entry;
  if (uncompressedSize > compressedSize * MAX_DEFLATE_RATIO) {
    const problem = `says that ${compressedSize} compressed bytes hold ${uncompressedSize}`;
    throw invalidArray(file, name, `${problem}, which deflate cannot do`);
  }
  if (inflated <= MAX_INFLATED_BYTES) return;
  const problem = `its compressed arrays take ${inflated} bytes or more in memory`;
  throw invalid(
    file.label,
    `is too large: ${problem}, at most ${MAX_INFLATED_BYTES} are allowed`,
    'Save it with numpy.savez, without compression: then it is read piece by piece.',
  );
}

function readMember(file: FileSource, entry: Entry, name: string, start: number): Member {
  const size = entry.uncompressedSize;
  const { source, offset } = contents(file, entry, name, start);
  const prefix = source.read(offset, offset + Math.min(size, MAX_NPY_PREFIX));
  const header = parseNpyHeader(prefix, labelOf(file, name));
  const { dtype, shape, dataStart, dataBytes } = header;
  if (dataStart + dataBytes !== size) {
    const what = `${dtype} (${shape.join(', ')}) takes ${dataBytes} bytes`;
    throw invalidArray(file, name, `is damaged: ${what}, its data has ${size - dataStart}`);
  }
  return { dtype, shape, source, start: offset + dataStart, end: offset + size };
}

/** The place at which the .npy file of a member can be read. */
function contents(
  file: FileSource,
  entry: Entry,
  name: string,
  start: number,
): { source: ByteSource; offset: number } {
  if (entry.isEncrypted()) throw invalidArray(file, name, 'is encrypted');
  if (entry.compressionMethod === STORED) return { source: file, offset: start };
  if (entry.compressionMethod === DEFLATED) {
    const compressed = file.read(start, start + entry.compressedSize);
    const bytes = inflate(file, entry, name, compressed);
    return { source: new MemorySource(bytes, file.label), offset: 0 };
  }
  const method = `compression method ${entry.compressionMethod}`;
  throw invalidArray(file, name, `has ${method}, expected none (0) or deflate (8)`);
}

function inflate(file: FileSource, entry: Entry, name: string, compressed: Uint8Array): Uint8Array {
  const size = entry.uncompressedSize;
  const bytes = attemptInflate(file, name, compressed, size);
  if (bytes.length !== size) {
    throw invalidArray(file, name, `is damaged: it has ${bytes.length} bytes, expected ${size}`);
  }
  if (crc32(bytes) !== entry.crc32) {
    throw invalidArray(file, name, 'is damaged: its bytes do not have the recorded checksum');
  }
  return bytes;
}

function attemptInflate(
  file: FileSource,
  name: string,
  compressed: Uint8Array,
  size: number,
): Uint8Array {
  // One chunk with a byte to spare: the result is not put together from pieces.
  const options = { maxOutputLength: Math.max(1, size), chunkSize: Math.max(64, size + 1) };
  try {
    const bytes = inflateRawSync(compressed, options);
    // A `slice` of a Buffer would be a view.
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  } catch (error) {
    const reason = (error as Error).message;
    throw invalidArray(file, name, `is damaged: it does not inflate to ${size} bytes (${reason})`);
  }
}

function labelOf(file: FileSource, name: string): string {
  return `${file.label}: array ${name}`;
}

function invalidArray(file: FileSource, name: string, problem: string): OnnxLoraError {
  return new OnnxLoraError('invalid-data', `${labelOf(file, name)} ${problem}`);
}

function invalid(label: string, problem: string, hint?: string, cause?: unknown): OnnxLoraError {
  return new OnnxLoraError('invalid-data', `${label} ${problem}`, { hint, cause });
}
