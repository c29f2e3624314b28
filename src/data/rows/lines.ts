/** A file of any size by its lines. */
import { OnnxLoraError } from '../../errors.js';
import type { ByteSource } from '../../onnx/byte-source.js';

export interface Line {
  /** Without its end; valid until the next line is taken. */
  readonly bytes: Uint8Array;
  /** Its start in the file, after a byte order mark. */
  readonly start: number;
  /** Start of the next one. */
  readonly end: number;
  /** Counted from 1. */
  readonly number: number;
}

const CHUNK_BYTES = 2 ** 20;

/**
 * Longer lines are not rows: a binary file, or one JSON document. A book has a megabyte; what JSON makes of a
 * line takes up to twenty times its bytes.
 */
const MAX_LINE_BYTES = 2 ** 25;

const [NEWLINE, RETURN] = [10, 13];

/**
 * The lines of a file, ended by LF or CRLF; the last one may have no end. Memory follows the longest line.
 * @throws OnnxLoraError `invalid-data` for UTF-16 and for a line of more than 32 MiB; `io`
 */
export function* linesOf(source: ByteSource): Generator<Line> {
  let start = byteOrderMark(source);
  let number = 1;
  let buffer = Buffer.alloc(0);
  for (let loaded = start; loaded < source.size; ) {
    const rest = buffer.length;
    // A line longer than a chunk is copied a few times, not once a chunk.
    const size = Math.min(Math.max(CHUNK_BYTES, rest), source.size - loaded);
    const grown = Buffer.allocUnsafe(rest + size);
    buffer.copy(grown);
    source.readInto(grown.subarray(rest), loaded);
    loaded += size;
    let at = 0;
    for (let end = grown.indexOf(NEWLINE, rest); end >= 0; end = grown.indexOf(NEWLINE, at)) {
      if (end - at > MAX_LINE_BYTES) throw tooLong(source, number);
      const next = start + end + 1 - at;
      yield { bytes: trimmed(grown, at, end), start, end: next, number: number++ };
      start = next;
      at = end + 1;
    }
    buffer = grown.subarray(at);
    if (buffer.length > MAX_LINE_BYTES) throw tooLong(source, number);
  }
  if (buffer.length > 0) {
    yield { bytes: trimmed(buffer, 0, buffer.length), start, end: source.size, number };
  }
}

function trimmed(buffer: Buffer, start: number, end: number): Uint8Array {
  return buffer.subarray(start, end > start && buffer[end - 1] === RETURN ? end - 1 : end);
}

/** Length of the UTF-8 mark at the start of the file. */
function byteOrderMark(source: ByteSource): number {
  const first = Buffer.from(source.read(0, Math.min(3, source.size))).toString('hex');
  if (first === 'efbbbf') return 3;
  if (!first.startsWith('fffe') && !first.startsWith('feff')) return 0;
  throw new OnnxLoraError('invalid-data', `${source.label} is UTF-16, expected UTF-8`, {
    hint: 'Convert it: iconv -f UTF-16 -t UTF-8',
  });
}

function tooLong({ label }: ByteSource, line: number): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-data',
    `${label}:${line}: the line is longer than ${MAX_LINE_BYTES} bytes, expected one row a line`,
    { hint: 'Write one JSON object, or one record, on each line.' },
  );
}
