/** Batches that make one update: what counts in them weighs alike, in whichever batch it stands. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../../src/commands/evaluate.js';
import type { TrainOptions } from '../../src/commands/options/train.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import type { LossName } from '../../src/training/losses/index.js';
import { safetensors } from '../data/data.js';
import { insertInto, randomNumbers } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';
import { logOf, trainTiny } from './tiny.js';

const files = temporaryFolder();
const [SAMPLES, LENGTH, CLASSES] = [5, 4, 3];

/** Frames of 6 numbers to logits: x [batch, length, 6], y [batch, length, 3]. */
async function frames(): Promise<string> {
  const bytes = model({
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'layer')],
    initializers: [tensor('w', [6, CLASSES])],
    inputs: [value('x', ['batch', 'length', 6])],
    outputs: [value('y', ['batch', 'length', CLASSES])],
  });
  return files.write(await insertInto(bytes, { rank: 2, blocks: 1, targets: ['all'] }));
}

const x = ['float32', [SAMPLES, LENGTH, 6], [...randomNumbers(1, SAMPLES * LENGTH * 6)]] as const;
const IGNORED = -100;
// One label that counts, then four, then two, none, three.
const labels = [
  [IGNORED, 1, IGNORED, IGNORED],
  [0, 1, 2, 1],
  [IGNORED, 2, IGNORED, 0],
  [IGNORED, IGNORED, IGNORED, IGNORED],
  [2, 0, 1, IGNORED],
];

function dataOf(samples: readonly number[], own: Readonly<Record<string, unknown>>): string {
  const rows = (values: readonly number[], width: number) =>
    samples.flatMap((sample) => values.slice(sample * width, (sample + 1) * width));
  const arrays = Object.entries({ x, ...own }).map(([name, given]) => {
    const [dtype, [, ...shape], values] = given as typeof x;
    const width = shape.reduce((a, b) => a * b, 1);
    return [name, [dtype, [samples.length, ...shape], rows(values, width)]] as const;
  });
  return files.write(safetensors(Object.fromEntries(arrays) as never), 'data.safetensors');
}

const ofTokens = { labels: ['int64', [SAMPLES, LENGTH], labels.flat()] };
const teacher = [...randomNumbers(2, SAMPLES * LENGTH * CLASSES)];
/** The loss, its data, and options of its own, some of which training alone has. */
type Case = readonly [LossName, Readonly<Record<string, unknown>>, Own?];
interface Own {
  readonly measured?: Partial<TrainOptions>;
  readonly trained?: Partial<TrainOptions>;
}
const weighted: Own = {
  measured: { classWeights: [0.5, 1, 3] },
  trained: { labelSmoothing: 0.2 },
};

const cases: Readonly<Record<string, Case>> = {
  'cross-entropy': ['cross-entropy', ofTokens],
  'cross-entropy with weights and smoothing': ['cross-entropy', ofTokens, weighted],
  'focal with weights and smoothing': ['focal', ofTokens, weighted],
  'causal-lm': ['causal-lm', ofTokens],
  kl: ['kl', { ...ofTokens, teacher: ['float32', [SAMPLES, LENGTH, CLASSES], teacher] }],
  mse: ['mse', { target: ['float32', [SAMPLES, LENGTH, CLASSES], teacher] }],
  bce: ['bce', { labels: ['int64', [SAMPLES, LENGTH, CLASSES], teacher.map((z) => +(z > 0))] }],
  ctc: [
    'ctc',
    {
      labels: ['int64', [SAMPLES, 2], [1, 2, 2, 0, 1, 1, 2, 1, 1, 0]],
      label_lengths: ['int64', [SAMPLES], [2, 1, 2, 2, 1]],
    },
  ],
};

const sgd: Partial<TrainOptions> = {
  ...({ optimizer: 'sgd', momentum: 0, weightDecay: 0, clip: 0, schedule: 'constant' } as const),
  ...{ shuffle: false, lr: 0.1, steps: 3 },
};

async function adaptersOf(path: string, data: string, options: Partial<TrainOptions>) {
  const saveAdapter = files.fresh('adapter.safetensors');
  const log = files.fresh('log.jsonl');
  const result = await trainTiny(files, { model: path, data }, { ...options, saveAdapter, log });
  const file = openSafetensors(saveAdapter);
  const numbers = [...file.tensors.keys()].flatMap((name) => [...file.readFloat32(name)]);
  file.close();
  return { numbers, result, records: logOf(log) as { loss: number; gradNorm: number }[] };
}

/** The largest difference, by the largest number. */
function distance(a: readonly number[], b: readonly number[]): number {
  const largest = Math.max(...b.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - b[i]!))) / largest;
}

describe.each(Object.entries(cases))(
  '%s',
  (_, [loss, own, { measured = {}, trained = {} } = {}]) => {
    it.each([
      ['without clipping', {}],
      ['clipped behind the sum', { clip: 0.05 }],
    ])('%s, batches of different weights make the update of one large batch', async (_, more) => {
      const path = await frames();
      const data = dataOf([0, 1, 2, 4], own);
      const how = { ...sgd, ...more, ...measured, ...trained, loss };
      const whole = await adaptersOf(path, data, { ...how, batchSize: 4 });
      const parts = await adaptersOf(path, data, { ...how, batchSize: 1, accumulate: 4 });
      expect(distance(parts.numbers, whole.numbers)).toBeLessThan(1e-6);
      for (const [i, { loss, gradNorm }] of whole.records.entries()) {
        expect(parts.records[i]!.loss / loss).toBeCloseTo(1, 5);
        expect(parts.records[i]!.gradNorm / gradNorm).toBeCloseTo(1, 5);
      }
    });

    it('the smaller batch at the end of an epoch weighs as much as is in it', async () => {
      const path = await frames();
      const data = dataOf([0, 1, 2, 3, 4], own);
      const how = { ...sgd, ...measured, ...trained, loss };
      const whole = await adaptersOf(path, data, { ...how, batchSize: 5 });
      const parts = await adaptersOf(path, data, { ...how, batchSize: 3, accumulate: 2 });
      expect(distance(parts.numbers, whole.numbers)).toBeLessThan(1e-6);
    });

    it('is evaluated to the same loss in batches of any size', async () => {
      const path = await frames();
      const data = dataOf([0, 1, 2, 3, 4], own);
      const how = { data, loss, ...measured, provider: 'cpu', threads: 1 } as const;
      const { loss: whole } = await evaluate(path, { ...how, batchSize: 5 });
      for (const batchSize of [1, 2, 3]) {
        expect((await evaluate(path, { ...how, batchSize })).loss / whole).toBeCloseTo(1, 6);
      }
    });
  },
);

describe('a batch in which no label counts', () => {
  it.each(['adamw', 'sgd'] as const)(
    'moves nothing, with %s and weight decay',
    async (optimizer) => {
      const path = await frames();
      const momentum = optimizer === 'sgd' ? 0.9 : undefined;
      const how = { ...sgd, optimizer, momentum, weightDecay: 0.5, batchSize: 1 };
      const options = { ...how, loss: 'cross-entropy' } as const;
      const notes: string[] = [];
      const onNote = (text: string) => notes.push(text);
      const broken = dataOf([0, 3, 1], ofTokens);
      const found = await adaptersOf(path, broken, { ...options, steps: 3, onNote });
      const expected = await adaptersOf(path, dataOf([0, 1], ofTokens), { ...options, steps: 2 });
      expect(found.numbers).toEqual(expected.numbers);
      expect(found.result.loss).toEqual(expected.result.loss);
      expect(found.records.map(({ loss }) => loss)).toEqual(
        expected.records.map(({ loss }) => loss),
      );
      expect(notes).toContain('step 2: no label of its samples counts, so it moves nothing');
    },
  );

  it('within an update leaves the others what they are', async () => {
    const path = await frames();
    const options = { ...sgd, loss: 'cross-entropy', batchSize: 1 } as const;
    const data = dataOf([0, 3, 1], ofTokens);
    const found = await adaptersOf(path, data, { ...options, accumulate: 3 });
    const expected = await adaptersOf(path, dataOf([0, 1], ofTokens), {
      ...options,
      accumulate: 2,
    });
    expect(distance(found.numbers, expected.numbers)).toBeLessThan(1e-6);
  });
});
