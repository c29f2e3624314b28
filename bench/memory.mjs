/**
 * Whether a long run stays as small as it starts: the memory of a process that trains a tiny model for
 * many steps, and of one that runs an AdapterSession with many adapters.
 *
 *   node bench/memory.mjs [--steps 200000] [--adapters 1000] [--runs 100000]
 *
 * Resident memory is looked at all the time; what counts is its growth over the work, of medians of pieces:
 * 10,000 steps or runs each where there are as many.
 */
import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import ort from 'onnxruntime-node';
import { encodeSafetensors } from '../dist/src/formats/safetensors-output.js';
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

  /** Medians of each piece of the work, in MB. */
  pieces(total) {
    const size = pieceSize(total);
    const pieces = Array.from({ length: Math.ceil(total / size) }, () => []);
    this.bytes.forEach((bytes, i) => {
      pieces[Math.min(pieces.length - 1, Math.floor(this.places[i] / size))].push(bytes / 2 ** 20);
    });
    return pieces.map((one) => (one.length > 0 ? Math.round(median(one)) : 0));
  }
}

/** At least ten pieces, of 10,000 where the work is long. */
const pieceSize = (total) => Math.min(10_000, Math.ceil(total / 10));

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
  return course.pieces(steps);
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
  return course.pieces(runs);
}

const results = {};
const started = performance.now();
await inTemporaryFolder({ bytes: 1e8 }, async (folder) => {
  if (steps > 0) results.training = await training(folder);
  if (runs > 0) results[`${adapters} adapters in a session`] = await session(folder);
});
for (const [name, pieces] of Object.entries(results)) {
  const size = pieceSize(name === 'training' ? steps : runs);
  table(
    [`MB resident: ${name}`, 'median'],
    pieces.map((mb, i) => [
      `up to ${Math.min((i + 1) * size, name === 'training' ? steps : runs)}`,
      `${mb}`,
    ]),
  );
}
const seconds = Math.round((performance.now() - started) / 1000);
saveResults('memory', { steps, adapters, runs, seconds, load: loadavg()[0], results });
