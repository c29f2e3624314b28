import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { OnnxLoraError } from '../errors.js';
import type { ByteSource, FilePlace } from './byte-source.js';

export { MemorySource } from './memory-source.js';

// Indexing jumps over weights and reads the small records between them: one page of this size
// covers many records and costs little where it covers one.
const PAGE_BYTES = 64 * 1024;

// Node's readSync takes a length below 2^31.
const MAX_READ_BYTES = 2 ** 30;

/** An open file, read through one page of cache; memory does not follow the file's size. */
export class FileSource implements ByteSource {
  readonly label: string;
  readonly size: number;
  private readonly fd: number;
  private page = new Uint8Array(PAGE_BYTES);
  private pageStart = 0;
  private pageEnd = 0;
  private open = true;

  /** @throws OnnxLoraError `file-not-found`, `not-a-file` or `io` */
  constructor(readonly path: string) {
    this.label = path;
    this.fd = openFile(path);
    this.size = fstatSync(this.fd).size;
  }

  byteAt(offset: number): number {
    if (offset < this.pageStart || offset >= this.pageEnd) this.loadPage(offset);
    return this.page[offset - this.pageStart]!;
  }

  read(start: number, end: number): Uint8Array {
    const bytes = new Uint8Array(end - start);
    this.readInto(bytes, start);
    return bytes;
  }

  readInto(target: Uint8Array, start: number): void {
    const end = start + target.byteLength;
    const isOnPage = () => start >= this.pageStart && end <= this.pageEnd;
    const isSmall = target.byteLength <= PAGE_BYTES / 4 && end <= this.size;
    if (isSmall && !isOnPage()) this.loadPage(start);
    if (isOnPage()) {
      target.set(this.page.subarray(start - this.pageStart, end - this.pageStart));
      return;
    }
    if (this.fill(target, start) < target.byteLength) {
      throw new OnnxLoraError(
        'io',
        `${this.path} ended while it was read: expected bytes ${start} to ${end}, it was ${this.size} bytes long when opened`,
        { hint: 'Is another program writing the file? Run again when it is done.' },
      );
    }
  }

  placeOf(start: number): FilePlace {
    return { path: this.path, start };
  }

  /**
   * Refuses a file that has become shorter since it was opened.
   * @throws OnnxLoraError `io`
   */
  checkWhole(): void {
    const { size } = fstatSync(this.fd);
    if (size >= this.size) return;
    throw new OnnxLoraError(
      'io',
      `${this.path} was cut off: it has ${size} bytes, ${this.size} when it was opened`,
      { hint: 'Open it again when the file is whole. Replace such files by renaming.' },
    );
  }

  /** Closes the file. */
  close(): void {
    if (this.open) closeSync(this.fd);
    this.open = false;
  }

  /** @returns how many bytes there were */
  private fill(target: Uint8Array, start: number): number {
    let done = 0;
    try {
      while (done < target.byteLength) {
        const count = Math.min(MAX_READ_BYTES, target.byteLength - done);
        const got = readSync(this.fd, target, done, count, start + done);
        if (got === 0) break;
        done += got;
      }
    } catch (error) {
      throw fileError(this.path, error);
    }
    return done;
  }

  private loadPage(start: number): void {
    this.pageStart = start;
    this.pageEnd = start + this.fill(this.page, start);
    if (this.pageEnd === start) {
      throw new OnnxLoraError('io', `${this.path} ended at byte ${start} while it was read`);
    }
  }
}

function openFile(path: string): number {
  try {
    // Looked at first: opening a pipe would wait for its other end.
    const stat = statSync(path);
    if (stat.isFile()) return openSync(path, 'r');
    throw notAFile(path, stat.isDirectory() ? 'a directory' : 'not a regular file');
  } catch (error) {
    throw error instanceof OnnxLoraError ? error : fileError(path, error);
  }
}

function notAFile(path: string, what: string): OnnxLoraError {
  return new OnnxLoraError('not-a-file', `${path} is ${what}, expected a file`);
}

const REASONS = {
  ENAMETOOLONG: 'the name is too long for the file system',
  ELOOP: 'its links lead round in a circle',
  EMFILE: 'the process may not open more files; see ulimit -n',
  ENFILE: 'the system has no room for more open files',
  EIO: 'the device does not read or write it, it may be damaged',
  EBUSY: 'another program holds it',
  EXDEV: 'it would have to move to another file system',
} as const;

/** A system error on `path` in the user's terms. */
export function fileError(path: string, error: unknown): OnnxLoraError {
  const code = (error as NodeJS.ErrnoException).code;
  switch (code) {
    case 'ENOENT':
      return new OnnxLoraError('file-not-found', `${path} does not exist`, {
        hint: 'Check the path; it is taken relative to the current folder.',
        cause: error,
      });
    case 'EISDIR':
      return notAFile(path, 'a directory');
    case 'ENOTDIR':
      return new OnnxLoraError(
        'file-not-found',
        `${path} does not exist: it leads through a file`,
        {
          hint: 'Check the path: all but its last part have to be folders.',
          cause: error,
        },
      );
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new OnnxLoraError('io', `${path}: permission denied (${code})`, {
        hint: 'Check the rights of the file and its folder, or name another place with `output`.',
        cause: error,
      });
    case 'ENOSPC':
    case 'EDQUOT':
      return new OnnxLoraError('io', `${path}: no space left on the device (${code})`, {
        hint: 'Free some space, or name another place with `output`. Nothing was left behind.',
        cause: error,
      });
    case 'ENAMETOOLONG':
    case 'ELOOP':
    case 'EMFILE':
    case 'ENFILE':
    case 'EIO':
    case 'EBUSY':
    case 'EXDEV':
      return new OnnxLoraError('io', `${path}: ${REASONS[code]} (${code})`, { cause: error });
    default:
      return new OnnxLoraError('io', `${path}: ${(error as Error).message}`, { cause: error });
  }
}
