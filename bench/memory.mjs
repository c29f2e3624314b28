/**
 * Whether a long run stays as small as it starts: the memory of a process that trains a tiny model for
 * many steps, and of one that runs an AdapterSession with many adapters.
 *
 *   node bench/memory.mjs [--steps 200000] [--adapters 1000] [--runs 100000]
 *
 * Resident memory is looked at all the time; what counts is its growth from the first tenth of the work to
 * the last, of medians.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import { encodeSafetensors } from '../dist/src/formats/safetensors.js';
import { AdapterSession, extract, patch, train } from '../dist/src/index.js';
import { inTemporaryFolder, median, saveResults, table } from './common.mjs';
import { expertsModel } from './experts.mjs';

const { values: args } = parseArgs({
  options: {
    steps: { type: 'string', default: '200000' },
    adapters: { type: 'string', default: '1000' },
    runs: { type: 'string', default: '100000' },
  },
});
const steps = Number(args.steps);
const adapters = Number(args.adapters);
const runs = Number(args.runs);

/** Resident memory over the course of some work. */
class Course {
  places = [];
  bytes = [];

  add(place) {
    this.places.push(place);
    this.bytes.push(process.memoryUsage.rss());
  }

  /** Medians over each tenth of the work, in MB. */
  tenths(total) {
    const tenths = Array.from({ length: 10 }, () => []);
    this.bytes.forEach((bytes, i) => {
      tenths[Math.min(9, Math.floor((10 * this.places[i]) / total))].push(bytes / 2 ** 20);
    });
    return tenths.map((one) => (one.length > 0 ? Math.round(median(one)) : 0));
  }
}

async function training(folder) {
  const [base, patched, data] = ['base.onnx', 'patched.onnx', 'data.safetensors'].map((name) =>
    join(folder, name),
  );
  writeFileSync(base, expertsModel(2));
  await patch(base, { rank: 2, blocks: 2, output: patched });
  const array = (name) => ({
    ...{ name, dtype: 'float32', shape: [64, 4] },
    data: new Uint8Array(Float32Array.from({ length: 256 }, (_, i) => Math.sin(i)).buffer),
  });
  writeFileSync(data, encodeSafetensors([array('x'), array('target')]));
  const course = new Course();
  let next = 0;
  await train(patched, {
    ...{ data, loss: 'mse', steps, batchSize: 4, lr: 1e-5, optimizer: 'adamw' },
    output: join(folder, 'trained.onnx'),
    onProgress: ({ phase, done }) => {
      if (phase !== 'training' || done < next) return;
      course.add(done);
      next = done + steps / 1000;
    },
  });
  return course.tenths(steps);
}

async function session(folder) {
  const [base, slots, patched] = ['s.onnx', 'slots.onnx', 'p.onnx'].map((name) =>
    join(folder, name),
  );
  writeFileSync(base, expertsModel(2));
  await patch(base, { slots: 'required', output: slots });
  await patch(base, { rank: 2, blocks: 2, output: patched });
  const file = join(folder, 'adapter.safetensors');
  await extract(patched, { output: file });
  const open = await AdapterSession.open(slots);
  const names = Array.from({ length: adapters }, (_, i) => `adapter${i}`);
  for (const name of names) await open.load(name, file);
  const x = new ort.Tensor('float32', new Float32Array(8), [2, 4]);
  const course = new Course();
  for (let i = 0; i < runs; i++) {
    await open.activate([[names[i % names.length], 1]]);
    await open.run({ x });
    if (i % Math.ceil(runs / 1000) === 0) course.add(i);
  }
  await open.release();
  return course.tenths(runs);
}

const results = {};
await inTemporaryFolder({ bytes: 1e8 }, async (folder) => {
  if (steps > 0) results.training = await training(folder);
  if (runs > 0) results[`${adapters} adapters in a session`] = await session(folder);
});
table(
  ['MB resident, medians of tenths', ...Array.from({ length: 10 }, (_, i) => `${i + 1}`)],
  Object.entries(results).map(([name, tenths]) => [name, ...tenths.map(String)]),
);
saveResults('memory', { steps, adapters, runs, results });
