/** Training with an emitted step graph: in ONNX Runtime Web, in onnxruntime-node, and by our own loop. */
import { readFileSync } from 'node:fs';
import * as node from 'onnxruntime-node';
import * as web from 'onnxruntime-web';
import { describe, expect, it } from 'vitest';
import { type Ort, StepTrainer, withTensors } from '../../src/browser/index.js';
import { apply } from '../../src/commands/apply.js';
import { extract } from '../../src/commands/extract.js';
import { foldAdapters } from '../../src/commands/merge.js';
import { resolveTrainOptions, type TrainOptions } from '../../src/commands/options/train.js';
import { patch } from '../../src/commands/patch.js';
import { runTraining } from '../../src/commands/train/run.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import type { LossName } from '../../src/training/losses/index.js';
import { insertInto } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { expectClose, expectSame, feed, maxDifference, run } from '../support/run.js';
import { zooSamples } from '../support/samples.js';
import { parse } from '../support/wire.js';
import { zooFeeds, zooModel, zooTensors } from '../support/zoo.js';
import './ort-web.js';

const files = temporaryFolder();
const STEPS = 5;
const LR = 0.01;
const quietly = { logSeverityLevel: 4 } as const;

type Batch = Record<string, node.Tensor>;

/** The recorded batches of a case. */
function batchesOf(name: string): Batch[] {
  return zooTensors([name, 'lora', 'train.safetensors'], (file) =>
    Array.from({ length: STEPS }, (_, step) =>
      Object.fromEntries(
        [...file.tensors].map(([key, { dtype, shape }]) => {
          const [steps = 1, ...dims] = shape;
          const bytes = file.read(key).slice();
          const own = bytes.slice(
            (bytes.length / steps) * step,
            (bytes.length / steps) * (step + 1),
          );
          const values =
            dtype === 'int64'
              ? Array.from(new BigInt64Array(own.buffer), Number)
              : new Float32Array(own.buffer);
          return [key.replace(/^input\./, ''), feed(dims, values, dtype)];
        }),
      ),
    ),
  );
}

interface Started {
  readonly patched: string;
  readonly data: string;
  readonly batches: readonly Batch[];
}

/** A case of the zoo with fresh adapters, and its data as a file and as batches. */
async function started(name: string): Promise<Started> {
  return {
    patched: files.write(await insertInto(zooModel(name), { rank: 8 })),
    data: files.write(zooSamples(name, 'lora', STEPS), 'data.safetensors'),
    batches: batchesOf(name),
  };
}

function options({ data, batches }: Started, loss: LossName): TrainOptions {
  const [first] = Object.values(batches[0]!);
  const course = { lr: LR, schedule: 'constant', shuffle: false, steps: STEPS } as const;
  const where = { provider: 'cpu', threads: 1 } as const;
  return { data, loss, batchSize: first!.dims[0]!, ...course, ...where };
}

/** The step graph's bytes. */
async function emitted(patched: string, how: TrainOptions): Promise<Uint8Array> {
  const emitStepGraph = files.fresh('step.onnx');
  // Those of the course are of no use to a step.
  const { lr, schedule, shuffle, steps, provider, ...step } = how;
  await runTraining(patched, resolveTrainOptions({ ...step, emitStepGraph }));
  return readFileSync(emitStepGraph);
}

async function lossesOf(trainer: StepTrainer, batches: readonly Batch[]): Promise<number[]> {
  const losses: number[] = [];
  for (const batch of batches) losses.push((await trainer.step(batch, LR)).loss);
  return losses;
}

/** The same description of the same tensors, whose numbers agree to rounding. */
function expectSameAdapters(found: string, expected: string): void {
  const [own, other] = [openSafetensors(found), openSafetensors(expected)];
  expect(own.metadata).toEqual(other.metadata);
  expect([...own.tensors.keys()].sort()).toEqual([...other.tensors.keys()].sort());
  for (const [name, { shape, dtype }] of other.tensors) {
    expect(own.tensors.get(name)).toMatchObject({ shape, dtype });
    expect(maxDifference(own.readFloat32(name), other.readFloat32(name)), name).toBeLessThan(1e-4);
  }
  own.close();
  other.close();
}

/** Every number within 0.01 % of the one expected. */
function expectRatiosOfOne(found: readonly number[], expected: readonly number[]): void {
  expect(found.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(found[i]! / value).toBeCloseTo(1, 4);
}

describe.each<[string, LossName]>([
  ['bert-cls-torchscript', 'cross-entropy'],
  ['vit-cls', 'cross-entropy'],
  ['gpt2-causal', 'causal-lm'],
  ['llama-q4-causal', 'causal-lm'],
  ['wav2vec2-ctc', 'ctc'],
  ['mlp-regression', 'mse'],
])('%s', (name, loss) => {
  it('trains in ONNX Runtime Web as in onnxruntime-node, and as by `train`', async () => {
    const start = await started(name);
    const how = options(start, loss);
    const log = files.fresh('run.jsonl');
    await runTraining(start.patched, resolveTrainOptions({ ...how, log, output: files.fresh() }));
    const lines = readFileSync(log, 'utf8').trim().split('\n');
    const expected = lines.map((line) => JSON.parse(line).loss as number);

    const step = await emitted(start.patched, how);
    for (const ort of [node, web] satisfies Ort[]) {
      const trainer = await StepTrainer.open(ort, step, quietly);
      expectRatiosOfOne(await lossesOf(trainer, start.batches), expected);
      await trainer.release();
    }
  });
});

it('makes one update of several batches where the graph accumulates them', async () => {
  const start = await started('mlp-regression');
  const how = { ...options(start, 'mse'), accumulate: 2, steps: 2 };
  const adapter = files.fresh('adapter.safetensors');
  const output = files.fresh();
  await runTraining(start.patched, resolveTrainOptions({ ...how, output, saveAdapter: adapter }));
  const trainer = await StepTrainer.open(web, await emitted(start.patched, how), quietly);
  await lossesOf(trainer, start.batches.slice(0, 4));
  expectSameAdapters(files.write(trainer.adapterFile(), 'adapter.safetensors'), adapter);
  await trainer.release();
});

it('trains with Lion, and with B at a learning rate of its own', async () => {
  const start = await started('mlp-regression');
  const how = { ...options(start, 'mse'), optimizer: 'lion', lrRatio: 4, lr: 1e-3 } as const;
  const log = files.fresh('run.jsonl');
  await runTraining(start.patched, resolveTrainOptions({ ...how, log, output: files.fresh() }));
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  const trainer = await StepTrainer.open(web, await emitted(start.patched, how), quietly);
  expect(trainer.manifest.optimizer).toMatchObject({ name: 'lion', lrRatio: 4 });
  expect(Object.keys(trainer.manifest.scalars)).toEqual(['lr']);
  const losses: number[] = [];
  for (const batch of start.batches) losses.push((await trainer.step(batch, how.lr)).loss);
  expectRatiosOfOne(
    losses,
    lines.map((line) => JSON.parse(line).loss as number),
  );
  await trainer.release();
});

describe('what was trained', () => {
  it('is an adapter file that makes the base model the trained one, applied or merged', async () => {
    const name = 'bert-cls-torchscript';
    const start = await started(name);
    const step = await emitted(start.patched, options(start, 'cross-entropy'));
    const trainer = await StepTrainer.open(web, step, quietly);
    await lossesOf(trainer, start.batches);
    const adapter = files.write(trainer.adapterFile(), 'adapter.safetensors');
    const trained = withTensors(readFileSync(start.patched), trainer.tensors());
    await trainer.release();

    const applied = await apply(zooModel(name), adapter, { output: files.fresh() });
    const merged = await foldAdapters(zooModel(name), { adapter, output: files.fresh() });
    const expected = await run(trained, zooFeeds(name));
    expectSame(await run(applied.output, zooFeeds(name)), expected);
    expectClose(await run(merged.output, zooFeeds(name)), expected, 1e-5);
    const fresh = await run(start.patched, zooFeeds(name));
    expect(() => expectClose(expected, fresh, 1e-2)).toThrow();
  });

  it('holds what trained with the adapters: biases', async () => {
    const start = await started('mlp-regression');
    const how = { ...options(start, 'mse'), trainBias: true };
    const adapter = files.fresh('adapter.safetensors');
    const output = files.fresh();
    await runTraining(start.patched, resolveTrainOptions({ ...how, output, saveAdapter: adapter }));
    const trainer = await StepTrainer.open(web, await emitted(start.patched, how), quietly);
    await lossesOf(trainer, start.batches);
    const own = files.write(trainer.adapterFile(), 'adapter.safetensors');
    await trainer.release();
    expectSameAdapters(own, adapter);
    const applied = await apply(zooModel('mlp-regression'), own, { output: files.fresh() });
    const feeds = zooFeeds('mlp-regression');
    expectClose(await run(applied.output, feeds), await run(output, feeds), 1e-4);
  });
});

describe('a StepTrainer refuses', () => {
  it('a model that is not a step graph', async () => {
    const model = readFileSync(zooModel('mlp-regression'));
    const error = await failure(() => StepTrainer.open(web, model), 'invalid-model');
    expect(error.message).toMatch(/not a step graph: expected .*onnx_lora\.step.*, found none$/);
    expect(error.hint).toContain('emitStepGraph');
  });

  it('what is no model', async () => {
    const cut = readFileSync(zooModel('mlp-regression')).subarray(0, 5000);
    const error = await failure(() => StepTrainer.open(web, cut), 'invalid-model');
    expect(error.message).toMatch(/^the model is not a valid ONNX file: at byte \d+ expected/);
  });

  it('a batch without an input', async () => {
    const start = await started('mlp-regression');
    const step = await emitted(start.patched, options(start, 'mse'));
    const trainer = await StepTrainer.open(web, step, quietly);
    const { x } = start.batches[0]!;
    const error = await failure(() => trainer.step({ x: x! }, LR), 'invalid-data');
    expect(error.message).toBe('the batch has x, and no target');
    await trainer.release();
  });

  it('a loss that is no number, and keeps the adapters of the step before', async () => {
    const start = await started('mlp-regression');
    const step = await emitted(start.patched, options(start, 'mse'));
    const trainer = await StepTrainer.open(web, step, quietly);
    await trainer.step(start.batches[0]!, LR);
    const before = trainer.adapterFile();
    const { x, target } = start.batches[1]!;
    const broken = feed(x!.dims, Array(x!.size).fill(Number.NaN));
    await failure(() => trainer.step({ x: broken, target: target! }, LR), 'diverged');
    expect(trainer.adapterFile()).toEqual(before);
    await trainer.release();
  });
});

it('feeds the random numbers that dropout takes', async () => {
  const start = await started('mlp-regression');
  const how = { ...options(start, 'mse'), dropout: 0.5 };
  const trainer = await StepTrainer.open(web, await emitted(start.patched, how), quietly);
  // The adapters start at zero, so that what is dropped shows from the second step on.
  const again = await StepTrainer.open(web, await emitted(start.patched, how), quietly);
  const [one, other] = [
    await lossesOf(trainer, start.batches),
    await lossesOf(again, start.batches),
  ];
  expect(one[0]).toBe(other[0]);
  expect(one.slice(1)).not.toEqual(other.slice(1));
  await trainer.release();
  await again.release();
});

it('refuses an adapter file of weights that it does not train; the trained model has them', async () => {
  const start = await started('mlp-regression');
  const base = zooModel('mlp-regression');
  await patch(base, { output: start.patched, init: 'pissa', rank: 8, force: true });
  const step = await emitted(start.patched, options(start, 'mse'));
  const trainer = await StepTrainer.open(web, step, quietly);
  await lossesOf(trainer, start.batches);
  const error = await failure(() => trainer.adapterFile(), 'unsupported');
  expect(error.message).toMatch(/^the adapter file has to hold \S+ of the model, which/);
  const trained = files.write(withTensors(readFileSync(start.patched), trainer.tensors()));
  await trainer.release();
  const { output: adapter } = await extract(trained, { output: files.fresh('a.safetensors') });
  const applied = await apply(base, adapter, { output: files.fresh() });
  const feeds = zooFeeds('mlp-regression');
  expectSame(await run(applied.output, feeds), await run(trained, feeds));
});

describe('withTensors refuses', () => {
  const model = readFileSync(zooModel('mlp-regression'));

  it('a tensor that the model does not have', async () => {
    const tensors = new Map([['lora/a', new Float32Array(4)]]);
    const error = await failure(() => withTensors(model, tensors), 'invalid-model');
    expect(error.message).toBe('the model has no initializer lora/a with raw data');
  });

  it('another number of elements', async () => {
    const { graph } = parse(model);
    const [name] = graph.initializers.keys();
    const tensors = new Map([[name!, new Float32Array(1)]]);
    const error = await failure(() => withTensors(model, tensors), 'invalid-argument');
    expect(error.message).toMatch(/holds \d+ bytes, expected the 4 of 1 float32 numbers$/);
  });
});
