/** Writes one large file, again and again, until it is killed: `write-child.ts PATH BYTES`. */
import { writeSync } from 'node:fs';
import { writeFiles } from '../../src/onnx/write.js';

const [path, size] = [process.argv[2]!, Number(process.argv[3])];
const CHUNK = 4 * 1024 * 1024;

for (let generation = 1; ; generation++) {
  const chunk = new Uint8Array(CHUNK).fill(generation);
  const chunks = function* () {
    for (let at = 0; at < size; at += CHUNK) yield chunk.subarray(0, Math.min(CHUNK, size - at));
  };
  await writeFiles([{ path, pieces: [{ length: size, chunks }] }], [], {
    force: true,
    // Not process.stdout, which may hold back what it was given.
    onProgress: ({ done }) => writeSync(1, `${generation} ${done}\n`),
  });
  writeSync(1, `${generation} written\n`);
}
