/** Models whose values have the names of inputs that training adds to their graphs. */
import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { StepTrainer } from '../../src/browser/step-trainer.js';
import { evaluate } from '../../src/commands/evaluate.js';
import type { TrainOptions } from '../../src/commands/options/train.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { safetensors } from '../data/data.js';
import { insertInto, randomNumbers } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';
import { logOf, trainTiny } from './tiny.js';

const files = temporaryFolder();
const SAMPLES = 12;

/** `y = relu((x + z)·W1)·W2 + b`, with names of the test's choice. */
function modelWith(called: (name: string) => string): Uint8Array {
  const named = (...names: string[]) => names.map(called);
  return model({
    nodes: [
      node('Add', named('x', 'z'), called('s'), {}, 'sum'),
      node('MatMul', named('s', 'w1'), called('h'), {}, 'first'),
      node('Relu', named('h'), called('t'), {}, 'relu'),
      node('MatMul', named('t', 'w2'), called('u'), {}, 'second'),
      node('Add', named('u', 'b'), called('y'), {}, 'bias'),
    ],
    initializers: [
      tensor(called('w1'), [6, 8]),
      tensor(called('w2'), [8, 4]),
      tensor(called('b'), [4]),
    ],
    inputs: [value(called('x'), ['batch', 6]), value(called('z'), ['batch', 6])],
    outputs: [value(called('y'), ['batch', 4])],
  });
}

const plain = (name: string) => name;
const ours: Readonly<Record<string, string>> = {
  ...{ x: 'm', z: 'accumulated_weight', s: 'theta', h: 'target', t: 'v', u: 'correction1' },
  ...{ w1: 'lr', w2: 'noise', b: 'theta_initial', y: 'accumulated' },
};
const ofOurs = (name: string) => ours[name] ?? name;

async function runWith(called: (name: string) => string) {
  const bytes = await insertInto(modelWith(called), { rank: 4, blocks: 1, targets: ['all'] });
  const numbers = (seed: number) => [...randomNumbers(seed, SAMPLES * 6)];
  const arrays = {
    [called('x')]: ['float32', [SAMPLES, 6], numbers(1)],
    [called('z')]: ['float32', [SAMPLES, 6], numbers(2)],
    target: ['float32', [SAMPLES, 4], [...randomNumbers(3, SAMPLES * 4)]],
  } as const;
  return { model: files.write(bytes), data: files.write(safetensors(arrays), 'data.safetensors') };
}

/** The trained numbers, the log, and what evaluation finds. */
async function trained(called: (name: string) => string, options: Partial<TrainOptions>) {
  const run = await runWith(called);
  const log = files.fresh('run.jsonl');
  const checkpoint = files.fresh('checkpoint');
  const how = { ...options, log, checkpoint, evalData: run.data, steps: 4 };
  const controller = new AbortController();
  const onProgress = ({ phase, done }: { phase: string; done: number }) => {
    if (phase === 'training' && done === 2) controller.abort();
  };
  const { signal } = controller;
  await failure(() => trainTiny(files, run, { ...how, signal, onProgress }), 'aborted');
  const { output, guard } = await trainTiny(files, run, { ...how, resume: true });
  expect(guard?.passed).toBe(true);
  const given = { data: run.data, loss: 'mse', provider: 'cpu', threads: 1 } as const;
  const { loss } = await evaluate(output, given);
  return { numbers: numbersOf(output), log: logOf(log), loss };
}

function numbersOf(path: string): number[] {
  const opened = openModel(path);
  const external = new ExternalFiles(opened);
  const patched = new PatchedModel(opened);
  const reader = new TensorReader(opened, external);
  const names = patched.sets[0]!.adapters.flatMap(({ a, b }) => [a, b]);
  const numbers = names.flatMap((name) => [...reader.float32(patched.initializer(name))]);
  external.close();
  opened.close();
  return numbers;
}

describe('a model with values called as inputs of the training step', () => {
  it.each<[string, Partial<TrainOptions>]>([
    ['AdamW', {}],
    ['SGD, accumulated batches and dropout', { optimizer: 'sgd', accumulate: 2, dropout: 0.2 }],
  ])('trains, is resumed and evaluated as with other names: %s', async (_, options) => {
    const expected = await trained(plain, options);
    const found = await trained(ofOurs, options);
    expect(found).toEqual(expected);
    expect(new Set(found.numbers).size).toBeGreaterThan(50);
  });

  it('has a step graph that says what its inputs are', async () => {
    const results = await Promise.all([plain, ofOurs].map(stepsOf));
    const [expected, found] = results as [Steps, Steps];
    expect(found.losses).toEqual(expected.losses);
    expect(found.numbers).toEqual(expected.numbers);
    expect(expected.manifest).toMatchObject({ version: 2 });
    expect(expected.manifest).not.toHaveProperty('renamed');
    const { version, renamed, data } = found.manifest;
    expect(version).toBe(3);
    expect(renamed).toEqual({
      ...{ theta_1: 'theta', m_1: 'm', v_1: 'v', accumulated_1: 'accumulated', lr_1: 'lr' },
      ...{ correction1_1: 'correction1', accumulated_weight_1: 'accumulated_weight' },
      target_1: 'target',
    });
    expect(data.map(({ name }) => name)).toEqual(['m', 'accumulated_weight', 'target_1']);
  });
});

type Steps = Awaited<ReturnType<typeof stepsOf>>;

/** Four batches of a step graph that accumulates two of them. */
async function stepsOf(called: (name: string) => string) {
  const run = await runWith(called);
  const emitStepGraph = files.fresh('step.onnx');
  await trainTiny(files, run, { accumulate: 2, output: undefined, emitStepGraph });
  const trainer = await StepTrainer.open(ort, readFileSync(emitStepGraph), { logSeverityLevel: 4 });
  const [x, z, target] = trainer.manifest.data.map(({ name }) => name) as [string, string, string];
  const array = (seed: number, width: number) =>
    new ort.Tensor('float32', Float32Array.from(randomNumbers(seed, 4 * width)), [4, width]);
  const losses: number[] = [];
  for (let i = 0; i < 4; i++) {
    const batch = { [x]: array(i, 6), [z]: array(10 + i, 6), [target]: array(20 + i, 4) };
    losses.push((await trainer.step(batch, 0.01)).loss);
  }
  const numbers = [...trainer.tensors().values()].map((values) => [...values]);
  await trainer.release();
  return { losses, numbers, manifest: trainer.manifest };
}
