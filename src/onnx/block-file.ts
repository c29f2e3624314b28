/**
 * A new file that is written in blocks, front to back. Large ones go past the system's page cache where
 * that can be: to copy a gigabyte there takes as long as the disk does, and pushes other files out.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { Memory, PAGE_BYTES } from '../web-assembly.js';

// Large enough to be worth the way to another thread, small enough to stay in the processor's cache.
const BLOCK_BYTES = 512 * 1024;

// Some wait for the disk while the next is filled: what is computed comes in bursts.
const BLOCKS = 4;

// Dirty pages are handed to the disk while more are made: the final sync then has little left.
const FLUSH_BYTES = 32 * 1024 * 1024;

const DIRECT_FROM = 256 * 1024 * 1024;

// Each is a request of its own to the disk: as many as there are threads, and one to fill.
const DIRECT_BLOCK_BYTES = 4 * 1024 * 1024;
const DIRECT_BLOCKS = 5;

// Place and length of a direct write are multiples of this.
const SECTOR = 4096;

export class BlockFile {
  private length = 0;
  private flushed = 0;
  private flushing: Promise<void> = Promise.resolve();

  private constructor(
    private readonly handle: FileHandle,
    private readonly isDirect: boolean,
    /** Memory to fill, block after block, and from the first again after the last. */
    readonly blocks: readonly Uint8Array[],
  ) {}

  /**
   * Makes a file that must not be there yet.
   * @param size of the whole
   * @param directFrom the size from which on files go past the page cache
   */
  static async create(path: string, size: number, directFrom = DIRECT_FROM): Promise<BlockFile> {
    const direct = size >= directFrom ? await openDirect(path, size) : undefined;
    if (direct) return new BlockFile(direct.handle, true, direct.blocks);
    const blocks = Array.from({ length: BLOCKS }, () => new Uint8Array(BLOCK_BYTES));
    return new BlockFile(await open(path, 'wx'), false, blocks);
  }

  /** Writes the next bytes of the file: a whole block, or the beginning of one as the last of all. */
  async write(block: Uint8Array, length: number): Promise<void> {
    const position = this.length;
    this.length += length;
    const written = this.isDirect ? Math.ceil(length / SECTOR) * SECTOR : length;
    await writeAll(this.handle, block.subarray(0, written), position);
    if (!this.isDirect) await this.flush();
  }

  private async flush(): Promise<void> {
    if (this.length - this.flushed < FLUSH_BYTES) return;
    this.flushed = this.length;
    await this.flushing;
    this.flushing = this.handle.datasync();
    this.flushing.catch(() => {});
  }

  /** Puts everything on the disk; nothing may be written after it. */
  async finish(): Promise<void> {
    await this.flushing;
    if (this.isDirect) await this.handle.truncate(this.length);
    await this.handle.sync();
  }

  async close(): Promise<void> {
    await Promise.allSettled([this.flushing]);
    await this.handle.close();
  }
}

/** A new file past the page cache, and memory to write it from; undefined where that cannot be. */
async function openDirect(path: string, size: number) {
  // Linux alone has the flag.
  const { O_DIRECT, O_WRONLY, O_CREAT, O_EXCL } = constants;
  if (O_DIRECT === undefined) return undefined;
  const blocks = alignedBlocks();
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_DIRECT);
    // Some file systems take the flag, and refuse what is written with it.
    await writeAll(handle, blocks[0]!.subarray(0, SECTOR), 0);
    // Writes that make a file longer wait for each other.
    await handle.truncate(size);
    return { handle, blocks };
  } catch (error) {
    await handle?.close();
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    await rm(path, { force: true });
    return undefined;
  }
}

/** Direct writes want memory that begins with a page, as WebAssembly's does. */
function alignedBlocks(): Uint8Array[] {
  const { buffer } = new Memory({ initial: (DIRECT_BLOCKS * DIRECT_BLOCK_BYTES) / PAGE_BYTES });
  return Array.from(
    { length: DIRECT_BLOCKS },
    (_, i) => new Uint8Array(buffer, i * DIRECT_BLOCK_BYTES, DIRECT_BLOCK_BYTES),
  );
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const left = bytes.length - done;
    const { bytesWritten } = await handle.write(bytes, done, left, position + done);
    done += bytesWritten;
  }
}
