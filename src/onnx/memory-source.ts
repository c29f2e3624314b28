/** A source apart from those that read files: pages in a browser use it too. */
import type { ByteSource } from './byte-source.js';

/** Bytes already in memory. */
export class MemorySource implements ByteSource {
  readonly size: number;

  constructor(
    private readonly bytes: Uint8Array,
    readonly label = '<memory>',
    /** The place that it would have as a file: its external data are in that folder. */
    readonly path: string | undefined = undefined,
  ) {
    this.size = bytes.byteLength;
  }

  byteAt(offset: number): number {
    return this.bytes[offset]!;
  }

  read(start: number, end: number): Uint8Array {
    return this.bytes.slice(start, end);
  }

  readInto(target: Uint8Array, start: number): void {
    target.set(this.bytes.subarray(start, start + target.byteLength));
  }

  placeOf(): undefined {}

  /** Nothing to close. */
  close(): void {}
}
