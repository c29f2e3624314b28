/**
 * Writes one large file, again and again, until it is killed: `write-child.mjs PATH BYTES [LAST]`. Where
 * LAST bytes of the first are written, it waits for that. It runs what is built: a process starts sooner.
 */
import { writeSync } from 'node:fs';
import { writeFiles } from '../../dist/src/onnx/write.js';

const path = process.argv[2];
const [size = 0, last = Infinity] = process.argv.slice(3).map(Number);
const waitForever = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
const CHUNK = 4 * 1024 * 1024;

for (let generation = 1; ; generation++) {
  const chunk = new Uint8Array(CHUNK).fill(generation);
  const chunks = function* () {
    for (let at = 0; at < size; at += CHUNK) yield chunk.subarray(0, Math.min(CHUNK, size - at));
  };
  await writeFiles([{ path, pieces: [{ length: size, chunks }] }], [], {
    force: true,
    // Not process.stdout, which may hold back what it was given.
    onProgress: ({ done }) => {
      writeSync(1, `${generation} ${done}\n`);
      if (done >= last) waitForever();
    },
  });
  writeSync(1, `${generation} written\n`);
}
