/** A place of bytes: the file, and the offset of the first. */
export interface FilePlace {
  /** Path of the file. */
  readonly path: string;
  /** The first byte. */
  readonly start: number;
}

/** Random access to bytes that need not be in memory: a file of any size, or a buffer. */
export interface ByteSource {
  /** Its name in messages: the path, or a word for bytes without one. */
  readonly label: string;
  /** The file's path; undefined for bytes in memory. */
  readonly path: string | undefined;
  /** Size in bytes. */
  readonly size: number;
  /** One byte; the caller stays below `size`. */
  byteAt(offset: number): number;
  /** A copy of the bytes from `start` to `end` (exclusive). */
  read(start: number, end: number): Uint8Array;
  /** Fills `target` from `start` on; throws where the source ends before. */
  readInto(target: Uint8Array, start: number): void;
  /** The place in a file of the bytes from `start` to `end`, if they lie in one piece; else undefined. */
  placeOf(start: number, end: number): FilePlace | undefined;
  /** Closes the file behind it, if there is one. */
  close(): void;
}
