/**
 * What a training step of DoRA and HiRA costs beside one of LoRA: on all linear layers of an encoder like
 * BERT's, trained in turn.
 *
 *   node bench/kinds.mjs [--rounds 5] [--steps 15] [--layers 2] [--hidden 384] [--batch 8] [--length 128]
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { kindNames } from '../dist/src/adapters/structure/choices.js';
import { patch } from '../dist/src/commands/patch.js';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
import {
  inTemporaryFolder,
  median,
  pairedRatio,
  saveResults,
  spread,
  table,
  withSpread,
} from './common.mjs';
import { runLogged } from './logged-process.mjs';
import { encoder, uniform } from './models.mjs';

const { values: args } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    steps: { type: 'string', default: '15' },
    layers: { type: 'string', default: '2' },
    hidden: { type: 'string', default: '384' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '128' },
  },
});
const [rounds, steps, layers, hidden, batch, length] = [
  args.rounds,
  args.steps,
  args.layers,
  args.hidden,
  args.batch,
  args.length,
].map(Number);
const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const WARM_UP = 3;

/** @param {string} folder */
function data(folder) {
  const random = uniform(5);
  const x = Float32Array.from({ length: batch * length * hidden }, random);
  const labels = BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(i % hidden));
  const bytes = (array) => new Uint8Array(array.buffer);
  const path = join(folder, 'data.safetensors');
  const tensors = [
    { name: 'x', dtype: 'float32', shape: [batch, length, hidden], data: bytes(x) },
    { name: 'labels', dtype: 'int64', shape: [batch, length], data: bytes(labels) },
  ];
  writeFileSync(path, encodeSafetensors(tensors));
  return path;
}

/** Milliseconds of a step, and the most memory. */
async function train(model, path) {
  const log = `${model}.jsonl`;
  const files = ['--data', path, '--log', log, '-o', `${model}.out`, '--force'];
  const fixed = '--loss cross-entropy --lr 1e-4 --schedule constant --no-shuffle --no-guard --json';
  const loop = ['--batch-size', String(batch), '--steps', String(steps), ...fixed.split(' ')];
  const run = await runLogged(process.execPath, [CLI, 'train', model, ...files, ...loop], log);
  return { ms: median(run.steps.slice(WARM_UP).map(({ ms }) => ms)), peak: run.peakBytes };
}

await inTemporaryFolder({ bytes: 1e9 }, async (folder) => {
  const base = join(folder, 'encoder.onnx');
  await encoder(base, { hidden, layers });
  const path = data(folder);
  const forms = [{ structure: 'localized', blocks: 4 }, { structure: 'global' }];
  const rows = [];
  const results = [];
  for (const form of forms) {
    const times = Object.fromEntries(kindNames.map((kind) => [kind, []]));
    const models = {};
    for (const kind of kindNames) {
      models[kind] = join(folder, `${kind}-${form.structure}.onnx`);
      await patch(base, { ...form, kind, rank: 16, output: models[kind] });
    }
    for (let round = 0; round < rounds; round++) {
      for (const kind of kindNames) times[kind].push((await train(models[kind], path)).ms);
    }
    for (const kind of kindNames) {
      const ratio = pairedRatio(times[kind], times.lora);
      const ms = spread(times[kind]);
      rows.push([`${kind}, ${form.structure}`, withSpread(ms, 0), withSpread(ratio)]);
      results.push({ kind, structure: form.structure, ms, ratio });
    }
  }
  const load = loadavg()[0];
  table(['adapters', 'ms a step', 'of LoRA'], rows);
  const settings = { rounds, steps, layers, hidden, batch, length };
  saveResults('kinds', { settings, threads: availableParallelism(), load, results });
});
