/** Files that are read at once, and no further than anything honest goes. */
import { closeSync, openSync, readSync } from 'node:fs';
import { OnnxLoraError } from '../errors.js';
import { fileError } from '../onnx/source.js';

const CHUNK_BYTES = 2 ** 20;

/**
 * All of a file, which may be a pipe.
 * @param most bytes; a file may be one that never ends
 * @throws OnnxLoraError `invalid-data` for a longer one, and those of reading
 */
export function readWholeFile(path: string, most: number): Buffer {
  const chunks = attempt(path, () => chunksOf(path, most));
  const bytes = Buffer.concat(chunks);
  if (bytes.length <= most) return bytes;
  throw new OnnxLoraError('invalid-data', `${path} is longer than ${most} bytes`, {
    hint: 'Files of this kind are much shorter: is it another one?',
  });
}

/** Up to a chunk more than `most`. */
function chunksOf(path: string, most: number): Buffer[] {
  const chunks: Buffer[] = [];
  const file = openSync(path, 'r');
  try {
    for (let length = 0; length <= most; ) {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
      const count = readSync(file, chunk);
      if (count === 0) break;
      chunks.push(chunk.subarray(0, count));
      length += count;
    }
    return chunks;
  } finally {
    closeSync(file);
  }
}

function attempt<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw fileError(path, error);
  }
}
