// Strips as tensors: what the model reads, and with its labels what `train --data` takes.
import { writeFileSync } from 'node:fs';
import { encodeSafetensors } from '../../dist/src/formats/safetensors-output.js';
import { classesOf } from './alphabet.mjs';
import { height, maxDigits, width } from './strips.mjs';

const channels = 3;
/** The model looks at 8 columns of pixels a frame. */
const frames = width / 8;

/** Dark ink on light paper, as PP-OCR expects it: (pixel / 255 - 0.5) / 0.5, three equal channels. */
export function imagesOf(strips) {
  const size = height * width;
  const data = new Float32Array(strips.length * channels * size);
  for (const [i, { ink }] of strips.entries()) {
    const image = ink.map((value) => 1 - 2 * value);
    for (let c = 0; c < channels; c++) data.set(image, (i * channels + c) * size);
  }
  return { dtype: 'float32', dims: [strips.length, channels, height, width], data };
}

/** A data set for the CTC loss: `x` is the model's input; label rows are filled up with 0. */
export function writeDataset(path, strips) {
  const labels = strips.flatMap(({ text }) => {
    const classes = classesOf(text);
    return Array.from({ length: maxDigits }, (_, i) => classes[i] ?? 0);
  });
  const { data, dims } = imagesOf(strips);
  const tensors = [
    integers('labels', [strips.length, maxDigits], labels),
    integers(
      'label_lengths',
      [strips.length],
      strips.map(({ text }) => text.length),
    ),
    integers(
      'input_lengths',
      [strips.length],
      strips.map(() => frames),
    ),
    { name: 'x', dtype: 'float32', shape: dims, data: new Uint8Array(data.buffer) },
  ];
  writeFileSync(path, encodeSafetensors(tensors));
}

function integers(name, shape, values) {
  const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  return { name, dtype: 'int64', shape, data };
}
