/** Output files that appear whole or not at all. */
import { lstatSync, realpathSync, type Stats, statSync } from 'node:fs';
import { link, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../errors.js';
import { BlockFile } from './block-file.js';
import { Claim } from './claim.js';
import { type Piece, pieceLength, totalLength } from './edit.js';
import { isReadFrom, isSameFile } from './same-file.js';
import { fileError } from './source.js';
import { removeStale, temporaryBeside } from './temporary.js';
import type { WorkOptions, WriteOptions } from './write-options.js';

export type { Progress, WorkOptions, WriteOptions } from './write-options.js';

/** A file to write. */
export interface OutputFile {
  readonly path: string;
  readonly pieces: readonly Piece[];
}

const REPORT_BYTES = 4 * 1024 * 1024;

/**
 * Writes the files beside their places, syncs them, then renames them into place in the given
 * order: what others refer to first. On any failure the temporary files are removed; old files stay as
 * they were, unless several were to be replaced and the system let go of the first ones only. The last
 * one is claimed meanwhile: another process that writes there is refused.
 * @param inputs files that must not be overwritten, `force` or not
 * @throws OnnxLoraError `output-exists`, `invalid-argument`, `io`, `aborted`
 */
export async function writeFiles(
  files: readonly OutputFile[],
  inputs: readonly string[],
  options: WriteOptions = {},
): Promise<void> {
  const read = [...inputs, ...(options.alsoRead ?? [])];
  for (const file of files) checkOutput(file.path, read, options.force ?? false);
  checkDistinct(files.map(({ path }) => path));
  const claim = Claim.unlessHeld(files.at(-1)!.path);
  try {
    await writeAll(files, options);
  } finally {
    claim?.release();
  }
}

async function writeAll(files: readonly OutputFile[], options: WriteOptions): Promise<void> {
  const total = files.reduce((sum, file) => sum + totalLength(file.pieces), 0);
  const report = progressReporter(total, options);
  const written: Written[] = [];
  let current = '';
  try {
    for (const { path, pieces } of files) {
      current = path;
      removeStale(path);
      const temporary = temporaryBeside(path);
      written.push({ temporary, path, isNew: !linkStatusOf(path) });
      await writeSynced(temporary, path, pieces, report);
    }
    const old = await setLastAside(written);
    try {
      for (const one of written) {
        current = one.path;
        await putInPlace(one, options.force ?? false);
      }
    } catch (error) {
      await Promise.all(written.map(takeBack));
      if (old) await rename(old, written.at(-1)!.path);
      throw error;
    }
    if (old) await rm(old, { force: true });
    await syncFolders(new Set(files.map((file) => dirname(file.path))));
  } catch (error) {
    await Promise.all(written.map(({ temporary }) => rm(temporary, { force: true })));
    throw isSystemError(error) ? fileError(current, error) : error;
  }
}

interface Written {
  readonly temporary: string;
  readonly path: string;
  /** Whether nothing had the name before. */
  readonly isNew: boolean;
  placed?: boolean;
}

/** Without force, a file that came there meanwhile stays. */
async function putInPlace(one: Written, force: boolean): Promise<void> {
  const { temporary, path } = one;
  if (force || !(await linked(temporary, path))) await rename(temporary, path);
  one.placed = true;
}

/** @returns false where the file system has no links */
async function linked(temporary: string, path: string): Promise<boolean> {
  try {
    await link(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw alreadyThere(path);
    return false;
  }
  await rm(temporary);
  return true;
}

/**
 * The last file is what makes the others into something: where one of those is replaced, it is gone
 * meanwhile, so that nobody reads the new ones with an old last one.
 * @returns where it is; undefined where it may stay
 */
async function setLastAside(written: readonly Written[]): Promise<string | undefined> {
  const last = written.at(-1)!;
  if (last.isNew || written.slice(0, -1).every(({ isNew }) => isNew)) return undefined;
  const aside = temporaryBeside(last.path);
  await rename(last.path, aside);
  return aside;
}

async function takeBack({ path, isNew, placed }: Written): Promise<void> {
  if (isNew && placed) await rm(path, { force: true });
}

/**
 * Refuses an output path that cannot be written to, before any work is done for it.
 * @param inputs files and folders that are read
 * @param option names the path
 * @throws OnnxLoraError `output-exists`, `invalid-argument`, `file-not-found`, `not-a-file`
 */
export function checkOutput(
  path: string,
  inputs: readonly string[],
  force: boolean,
  option = 'output',
): void {
  if (!statusOf(dirname(path))?.isDirectory()) {
    throw new OnnxLoraError('file-not-found', `${path}: its folder does not exist`, {
      hint: `Create the folder first, or name another place with \`${option}\`.`,
    });
  }
  if (inputs.some((input) => isReadFrom(input, path))) {
    throw new OnnxLoraError('invalid-argument', `${path} is an input; inputs are never modified`, {
      hint: `Name another place with \`${option}\`.`,
    });
  }
  const existing = statusOf(path);
  if (existing) checkRegular(path, existing);
  if ((existing || linkStatusOf(path)) && !force) {
    throw alreadyThere(path, option);
  }
}

function alreadyThere(path: string, option = 'output'): OnnxLoraError {
  return new OnnxLoraError('output-exists', `${path} exists already`, {
    hint: `Replace it with \`force: true\`, or name another place with \`${option}\`.`,
  });
}

/** A file takes the place of a file, and of nothing else. */
function checkRegular(path: string, existing: Stats): void {
  const kind = existing.isDirectory() ? 'a directory' : 'a device, pipe or socket';
  if (existing.isFile() && !isDevice(path)) return;
  throw new OnnxLoraError('not-a-file', `${path} is ${kind}, expected a file to write`, {
    hint: 'Name a file with `output`.',
  });
}

/** `/dev/stdout` may lead to a file, and is still no place for another one. */
function isDevice(path: string): boolean {
  return /^\/(dev|proc\/.*)$/.test(realpathSync(dirname(path)));
}

/**
 * Refuses outputs that would be one file.
 * @throws OnnxLoraError `invalid-argument`
 */
export function checkDistinct(paths: readonly string[]): void {
  const twice = paths.find((path, i) => paths.slice(0, i).some((other) => isSameFile(other, path)));
  if (twice === undefined) return;
  throw new OnnxLoraError('invalid-argument', `${twice} is to hold two outputs of the run`, {
    hint: 'Name a file for each.',
  });
}

function statusOf(path: string): Stats | undefined {
  return status(path, () => statSync(path, { throwIfNoEntry: false }));
}

function linkStatusOf(path: string): Stats | undefined {
  return status(path, () => lstatSync(path, { throwIfNoEntry: false }));
}

function status(path: string, read: () => Stats | undefined): Stats | undefined {
  try {
    return read();
  } catch (error) {
    throw fileError(path, error);
  }
}

type Report = (bytes: number) => void;

function progressReporter(total: number, options: WorkOptions): Report {
  let done = 0;
  return (bytes) => {
    if (options.signal?.aborted) {
      throw new OnnxLoraError('aborted', 'interrupted; nothing was written');
    }
    done += bytes;
    options.onProgress?.({ phase: 'writing', done, total, unit: 'bytes' });
  };
}

async function writeSynced(
  temporary: string,
  path: string,
  pieces: readonly Piece[],
  report: Report,
): Promise<void> {
  let file: BlockFile;
  try {
    file = await BlockFile.create(temporary, totalLength(pieces));
  } catch (error) {
    throw fileError(path, error);
  }
  try {
    await new Writer(file, report).all(pieces);
    await file.finish();
  } finally {
    await file.close();
  }
}

/** Gathers pieces into blocks. Full ones are written by other threads while the next fills. */
class Writer {
  private readonly written: Promise<void>[];
  private current = 0;
  private filled = 0;
  private done = 0;
  private reported = 0;

  constructor(
    private readonly file: BlockFile,
    private readonly report: Report,
  ) {
    this.written = file.blocks.map(() => Promise.resolve());
  }

  async all(pieces: readonly Piece[]): Promise<void> {
    try {
      for (const piece of pieces) await this.piece(piece);
      if (this.filled > 0) await this.writeOut();
      await Promise.all(this.written);
      this.report(this.done - this.reported);
    } finally {
      await Promise.allSettled(this.written);
    }
  }

  private get block(): Uint8Array {
    return this.file.blocks[this.current]!;
  }

  private async piece(piece: Piece): Promise<void> {
    if (piece instanceof Uint8Array) return this.copy(piece);
    if ('chunks' in piece) {
      let length = 0;
      for await (const chunk of piece.chunks()) {
        length += chunk.byteLength;
        await this.copy(chunk);
      }
      if (length !== piece.length) {
        throw new Error(`a piece of ${pieceLength(piece)} bytes came with ${length}`);
      }
      return;
    }
    for (let at = piece.start; at < piece.end; ) {
      const count = Math.min(this.block.length - this.filled, piece.end - at);
      piece.source.readInto(this.block.subarray(this.filled, this.filled + count), at);
      at += count;
      await this.advance(count);
    }
  }

  private async copy(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength; ) {
      const count = Math.min(this.block.length - this.filled, bytes.byteLength - at);
      this.block.set(bytes.subarray(at, at + count), this.filled);
      at += count;
      await this.advance(count);
    }
  }

  private async advance(count: number): Promise<void> {
    this.filled += count;
    if (this.filled < this.block.length) return;
    await this.writeOut();
    if (this.done - this.reported >= REPORT_BYTES) {
      this.report(this.done - this.reported);
      this.reported = this.done;
      // Signals and timers get their turn.
      await setImmediate();
    }
  }

  private async writeOut(): Promise<void> {
    const written = this.file.write(this.block, this.filled);
    written.catch(() => {});
    this.written[this.current] = written;
    this.done += this.filled;
    this.filled = 0;
    this.current = (this.current + 1) % this.written.length;
    await this.written[this.current];
  }
}

/**
 * Gives a whole folder its name, which nothing has yet.
 * @throws a system error where something has it by now
 */
export async function renameFolder(from: string, to: string): Promise<void> {
  await rename(from, to);
  await syncFolders(new Set([dirname(to)]));
}

async function syncFolders(folders: ReadonlySet<string>): Promise<void> {
  // Windows cannot open a folder to sync it, and its renames need no such thing.
  if (process.platform === 'win32') return;
  for (const folder of folders) {
    const handle = await open(folder, 'r');
    await handle.sync().finally(() => handle.close());
  }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string';
}
