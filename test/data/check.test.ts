import { describe, expect, it } from 'vitest';
import { checkDataset } from '../../src/data/check.js';
import { convertBatch } from '../../src/data/convert.js';
import type { DataNeeds } from '../../src/data/needs.js';
import { openDataset } from '../../src/data/open-dataset.js';
import type { ValueSpec } from '../../src/graph/builder.js';
import type { DataTypeName } from '../../src/onnx/dtype.js';
import type { Dim } from '../../src/onnx/model.js';
import { labelRequest } from '../../src/training/losses/index.js';
import { failure, temporaryFolder } from '../support/files.js';
import { array, normals, runLoss } from '../training/losses/run-loss.js';
import { type Column, safetensors } from './data.js';

const folder = temporaryFolder();

type Columns = Readonly<Record<string, Column>>;

const spec = (name: string, dtype: DataTypeName, shape: readonly Dim[] | null): ValueSpec => ({
  name,
  dtype,
  shape,
});

const ids = spec('input_ids', 'int64', ['batch', 'seq']);
const mask = spec('attention_mask', 'int64', ['batch', 'seq']);

/** A classifier of two sequences of three ids into four classes. */
const classifier: DataNeeds = {
  inputs: [ids, mask],
  lossInputs: [spec('labels', 'int64', ['batch'])],
  ...labelRequest('cross-entropy'),
  output: { shape: ['batch', 4] },
};
const good: Columns = {
  input_ids: ['int64', [2, 3], [1, 2, 3, 4, 5, 6]],
  attention_mask: ['int64', [2, 3], 1],
  labels: ['int64', [2], [3, 0]],
};

const causal: DataNeeds = {
  ...classifier,
  lossInputs: [spec('labels', 'int64', ['batch', 'seq'])],
  ...labelRequest('causal-lm'),
  output: { shape: ['batch', 'seq', 10] },
};

const regression: DataNeeds = {
  inputs: [spec('x', 'float32', ['batch', 2])],
  lossInputs: [spec('target', 'float32', ['batch', 3])],
  ...labelRequest('mse'),
  output: { shape: ['batch', 3] },
};
const numbers: Columns = {
  x: ['float32', [2, 2], 0.5],
  target: ['float32', [2, 3], [1, 2, 3, 4, 5, 6]],
};

const binary: DataNeeds = {
  ...regression,
  ...labelRequest('bce'),
  lossInputs: [spec('labels', 'int64', ['batch', 3])],
};

const ctc: DataNeeds = {
  inputs: [spec('x', 'float32', ['batch', 'frames'])],
  lossInputs: [
    spec('labels', 'int64', ['batch', 'labels_length']),
    spec('input_lengths', 'int64', ['batch']),
    spec('label_lengths', 'int64', ['batch']),
  ],
  ...labelRequest('ctc'),
  output: { shape: ['batch', 7, 5] },
};
const speech: Columns = {
  x: ['float32', [2, 9], 0],
  labels: ['int64', [2, 3], [1, 4, 0, 2, 0, 0]],
  label_lengths: ['int64', [2], [2, 1]],
  input_lengths: ['int64', [2], [7, 3]],
};

const ranking: DataNeeds = {
  inputs: [ids, mask],
  lossInputs: [],
  ...labelRequest('mnr'),
  output: { shape: ['batch', 8] },
};
const pairs: Columns = {
  input_ids: ['int64', [3, 2, 5], 1],
  attention_mask: ['int64', [3, 2, 5], 1],
};

async function check(columns: Columns, needs: DataNeeds) {
  const path = folder.write(safetensors(columns), 'data.safetensors');
  const dataset = await openDataset(path);
  try {
    return { path, ...(await checkDataset(dataset, needs)) };
  } finally {
    dataset.close();
  }
}

/** The message with the file's name in place of its path. */
async function refusal(
  columns: Columns,
  needs: DataNeeds,
  code: 'invalid-data' | 'invalid-argument' = 'invalid-data',
): Promise<string> {
  const path = folder.write(safetensors(columns), 'data.safetensors');
  const dataset = await openDataset(path);
  const { message } = await failure(() => checkDataset(dataset, needs), code);
  dataset.close();
  expect(message).toContain(path);
  return message.replace(path, 'data');
}

describe('a dataset that fits', () => {
  it('is told how its keys become feeds, and which are not used', async () => {
    const extra: Column = ['float32', [2], 0];
    const checked = await check({ ...good, weight: extra }, classifier);
    expect(checked.feeds).toEqual([
      { name: 'input_ids', key: 'input_ids', dtype: 'int64', group: 1 },
      { name: 'attention_mask', key: 'attention_mask', dtype: 'int64', group: 1 },
      { name: 'labels', key: 'labels', dtype: 'int64', group: 1 },
    ]);
    expect([...checked.keys].sort()).toEqual(['attention_mask', 'input_ids', 'labels']);
    expect(checked.unused).toEqual(['weight']);
  });

  it('may call labels target, and the target labels', async () => {
    const { labels, ...rest } = good;
    const classes = await check({ ...rest, target: labels! }, classifier);
    expect(classes.feeds.at(-1)).toMatchObject({ name: 'labels', key: 'target' });
    const { target, ...x } = numbers;
    const values = await check({ ...x, labels: target! }, regression);
    expect(values.feeds.at(-1)).toMatchObject({ name: 'target', key: 'labels' });
  });

  it.each<[string, Columns, DataNeeds]>([
    ['narrower integers', { ...good, labels: ['uint8', [2], [3, 0]] }, classifier],
    ['wider floats', { ...numbers, x: ['float64', [2, 2], 0.1] }, regression],
    ['half floats', { ...numbers, x: ['float16', [2, 2], 0.5] }, regression],
    ['integers as float targets', { ...numbers, target: ['int64', [2, 3], 2 ** 24] }, regression],
    ['labels that do not count', { ...good, labels: ['int64', [2], [-100, 1]] }, classifier],
    ['bools as answers', { ...numbers, labels: ['bool', [2, 3], [1, 0, 1, 0, 0, 1]] }, binary],
    ['lengths and labels of ctc', speech, ctc],
    [
      'labels of ctc behind their length',
      { ...speech, labels: ['int64', [2, 3], [1, 4, -1, 2, 99, 0]] },
      ctc,
    ],
    [
      'targets without a last axis of size 1',
      { ...numbers, target: ['float32', [2], 1] },
      {
        ...regression,
        output: { shape: ['batch', 1] },
        lossInputs: [spec('target', 'float32', null)],
      },
    ],
    ['an input of any rank', good, { ...classifier, inputs: [spec('input_ids', 'int64', null)] }],
    ['pairs', pairs, ranking],
  ])('may have %s', async (_, columns, needs) => {
    await check(columns, needs);
  });

  it('predicts its own ids for causal-lm without labels', async () => {
    const { labels: _, ...rest } = good;
    const { ownLabels, feeds } = await check(rest, causal);
    expect(ownLabels).toEqual({ ids: 'input_ids', mask: 'attention_mask', ignoreIndex: -100 });
    expect(feeds.map(({ name }) => name)).toEqual(['input_ids', 'attention_mask']);
    const labels: Column = ['int64', [2, 3], 1];
    expect((await check({ ...rest, labels }, causal)).ownLabels).toBeUndefined();
  });

  it('counts all frames for ctc without input lengths', async () => {
    const { input_lengths: _, ...rest } = speech;
    const path = folder.write(safetensors(rest), 'data.safetensors');
    const dataset = await openDataset(path);
    const plan = await checkDataset(dataset, ctc);
    const feeds = convertBatch(await dataset.batch([1, 0], plan.keys), plan);
    dataset.close();
    const data = BigInt64Array.of(2n ** 31n - 1n, 2n ** 31n - 1n);
    expect(feeds.get('input_lengths')).toEqual({ dtype: 'int64', dims: [2], data });
    expect((await check(speech, ctc)).allFrames).toBe(false);

    const loss = (frames: number) =>
      runLoss('ctc', normals([2, 7, 5], 1), {
        labels: array([
          [1, 4, 0],
          [2, 0, 0],
        ]),
        label_lengths: array([2, 1]),
        input_lengths: array([frames, frames]),
      });
    expect(await loss(Number(data[0]))).toEqual(await loss(7));
    expect((await loss(6)).loss).not.toBe((await loss(7)).loss);
  });

  it('is read a piece at a time', async () => {
    const rows = 400_000;
    const columns: Columns = {
      x: ['float32', [rows, 2], 0.5],
      target: ['float32', [rows, 3], 1],
    };
    const dataset = await openDataset(folder.write(safetensors(columns), 'data.safetensors'));
    const done: number[] = [];
    await checkDataset(dataset, regression, { onProgress: (progress) => done.push(progress.done) });
    expect(done.length).toBeGreaterThan(1);
    expect(done.at(-1)).toBe(rows);
    const stopped = { signal: AbortSignal.abort() };
    await failure(() => checkDataset(dataset, regression, stopped), 'aborted');
    dataset.close();
  });
});

describe('keys and shapes', () => {
  it.each<[string, Columns, DataNeeds, string]>([
    [
      'a missing input',
      { ...good, attention_mask: undefined as never, attn_mask: good.attention_mask! },
      classifier,
      "data has no key attention_mask for the model's input attention_mask, it has: input_ids, labels, attn_mask",
    ],
    [
      'missing labels',
      { input_ids: good.input_ids!, attention_mask: good.attention_mask! },
      classifier,
      'data has no key labels for the loss cross-entropy, it has: input_ids, attention_mask',
    ],
    [
      'no samples',
      { x: ['float32', [0, 2], 0], target: ['float32', [0, 3], 0] },
      regression,
      'data holds 0 samples, expected some',
    ],
    [
      'floats for ids',
      { ...good, input_ids: ['float32', [2, 3], 1] },
      classifier,
      "data: key input_ids holds float32, the model's input takes int64",
    ],
    [
      'integers that may not fit',
      { ...good, labels: ['uint64', [2], 1] },
      classifier,
      'data: key labels holds uint64, the loss cross-entropy takes int64',
    ],
    [
      'integers for a float input',
      { ...numbers, x: ['uint8', [2, 2], 1] },
      regression,
      "data: key x holds uint8, the model's input takes float32",
    ],
    [
      'another width',
      { ...numbers, x: ['float32', [2, 5], 1] },
      regression,
      "data: key x has shape [2, 5], the model's input takes [batch, 2]",
    ],
    [
      'another rank',
      { ...good, labels: ['int64', [2, 1], 1] },
      classifier,
      'data: key labels has shape [2, 1], the loss cross-entropy takes [batch]',
    ],
    [
      'targets for another output',
      { ...numbers, target: ['float32', [2, 2], 1] },
      {
        ...regression,
        output: { shape: ['batch', 1] },
        lossInputs: [spec('target', 'float32', null)],
      },
      'data: key target has shape [2, 2], the loss mse takes [batch, 1]',
    ],
    [
      'lengths that differ where the model has one',
      { ...good, attention_mask: ['int64', [2, 4], 1] },
      classifier,
      "data: the model's axis seq has one length, but key input_ids has 3, key attention_mask has 4",
    ],
    [
      'pairs for some inputs only',
      { ...pairs, attention_mask: ['int64', [3, 5], 1] },
      ranking,
      'data: key input_ids holds pairs, key attention_mask holds single rows',
    ],
  ])('refuses %s', async (_, columns, needs, message) => {
    const given = Object.entries(columns).filter(([, column]) => column !== undefined);
    expect(await refusal(Object.fromEntries(given), needs)).toBe(message);
  });

  it('names keys that were probably meant', async () => {
    const path = folder.write(
      safetensors({ 'input.x': numbers.x!, y: numbers.x! }),
      'data.safetensors',
    );
    const dataset = await openDataset(path);
    const { hint } = await failure(() => checkDataset(dataset, regression), 'invalid-data');
    expect(hint).toMatch(/^Is it input\.x\? Save an array/);
    dataset.close();
  });
});

describe('numbers', () => {
  it.each<[string, Columns, DataNeeds, string]>([
    [
      'a label that is no class',
      { ...good, labels: ['int64', [2], [0, 4]] },
      classifier,
      'key labels, sample 1: found 4, expected 0 to 3 (4 classes), or -100 to leave it out',
    ],
    [
      'a negative label',
      { ...good, labels: ['int64', [2], [0, -1]] },
      classifier,
      'key labels, sample 1: found -1, expected 0 to 3 (4 classes), or -100 to leave it out',
    ],
    [
      'a label of one token',
      { ...good, labels: ['int64', [2, 3], [0, 1, 2, 3, 4, 10]] },
      causal,
      'key labels, sample 1, element [2]: found 10, expected 0 to 9 (10 classes), or -100 to leave it out',
    ],
    [
      'an id that is no class, where ids are the labels',
      { ...good, labels: undefined as never, input_ids: ['int64', [2, 3], 10] },
      causal,
      'key input_ids, sample 0, element [0]: found 10, expected 0 to 9 (classes)',
    ],
    [
      'an id outside the table',
      good,
      { ...classifier, indexBounds: new Map([['input_ids', { min: 0, limit: 6 }]]) },
      'key input_ids, sample 1, element [2]: found 6, expected 0 to 5 (rows of the table that the model looks them up in)',
    ],
    [
      'NaN',
      { ...numbers, x: ['float32', [2, 2], [0, 0, Number.NaN, 0]] },
      regression,
      'key x, sample 1, element [0]: found NaN, expected a finite number that float32 holds',
    ],
    [
      'infinity in half precision',
      { ...numbers, target: ['float16', [2, 3], [0, 0, 0, 0, 0, Number.NEGATIVE_INFINITY]] },
      regression,
      'key target, sample 1, element [2]: found -Infinity, expected a finite number that float32 holds',
    ],
    [
      'what overflows when it is rounded',
      { ...numbers, x: ['float64', [2, 2], [0, 1e300, 0, 0]] },
      regression,
      'key x, sample 0, element [1]: found 1e+300, expected a finite number that float32 holds',
    ],
    [
      'an integer target that a float does not hold',
      { ...numbers, target: ['int64', [2, 3], 2 ** 24 + 1] },
      regression,
      'key target, sample 0, element [0]: found 16777217, expected a finite number that float32 holds',
    ],
    [
      'an answer that is neither 0 nor 1',
      { ...numbers, target: undefined as never, labels: ['int64', [2, 3], [0, 1, 0, 1, 2, 0]] },
      binary,
      'key labels, sample 1, element [1]: found 2, expected 0 or 1',
    ],
    [
      'a probability above 1',
      { ...numbers, target: ['float32', [2, 3], 1.5] },
      { ...regression, ...labelRequest('bce') },
      'key target, sample 0, element [0]: found 1.5, expected probabilities from 0 to 1',
    ],
    [
      'the blank among the labels',
      { ...speech, labels: ['int64', [2, 3], [1, 0, 4, 2, 0, 0]] },
      ctc,
      'key labels, sample 0, element [1]: found 0, expected 0 to 4 without 0, which is the blank',
    ],
    [
      'a label of ctc that is no class',
      { ...speech, labels: ['int64', [2, 3], [1, 2, 4, 5, 0, 0]] },
      ctc,
      'key labels, sample 1, element [0]: found 5, expected 0 to 4 without 0, which is the blank',
    ],
    [
      'more labels than there are',
      { ...speech, label_lengths: ['int64', [2], [2, 4]] },
      ctc,
      'key label_lengths, sample 1: found 4, expected 0 to 3, the length of key labels',
    ],
    [
      'more frames than there are',
      { ...speech, input_lengths: ['int64', [2], [7, 8]] },
      ctc,
      'key input_lengths, sample 1: found 8, expected 1 to 7 (frames)',
    ],
  ])('refuses %s', async (_, columns, needs, message) => {
    const given = Object.entries(columns).filter(([, column]) => column !== undefined);
    expect(await refusal(Object.fromEntries(given), needs)).toBe(`data: ${message}`);
  });

  it('refuses labels none of which counts', async () => {
    const columns: Columns = { ...good, labels: ['int64', [2], 7] };
    expect(await refusal(columns, { ...classifier, ignoreIndex: 7 })).toBe(
      'data: key labels has no label that counts, all are 7',
    );
  });

  it('finds a fault far into the file', async () => {
    const rows = 300_000;
    const labels = Array<number>(rows).fill(1);
    labels[299_999] = 4;
    const columns: Columns = {
      input_ids: ['int64', [rows, 3], 1],
      attention_mask: ['int64', [rows, 3], 1],
      labels: ['int64', [rows], labels],
    };
    const bounds = { min: 0, limit: 5 };
    const needs = { ...classifier, indexBounds: new Map([['input_ids', bounds]]) };
    expect(await refusal(columns, needs)).toContain('key labels, sample 299999: found 4');
  });
});

describe('batch sizes', () => {
  const fixed: DataNeeds = { ...regression, inputs: [spec('x', 'float32', [2, 2])] };
  const batches = (batchSize: number, shuffle = false) => ({ batches: { batchSize, shuffle } });
  const rows: Columns = {
    input_ids: ['int64', [6, 5], 1],
    attention_mask: ['int64', [6, 5], 1],
  };

  it('fit a fixed batch axis, the last batch too', async () => {
    await check(numbers, { ...fixed, ...batches(2) });
    expect(await refusal(numbers, { ...fixed, ...batches(1) }, 'invalid-argument')).toBe(
      "the model's input x takes batches of 2, found a batch of 1 of the 2 samples in data",
    );
    const three: Columns = { x: ['float32', [3, 2], 0], target: ['float32', [3, 3], 0] };
    expect(await refusal(three, { ...fixed, ...batches(2) }, 'invalid-argument')).toContain(
      'found a batch of 1 of the 3 samples',
    );
  });

  it('of single rows for mnr are even, and in the order of the file', async () => {
    await check(rows, { ...ranking, ...batches(4) });
    await check(pairs, { ...ranking, ...batches(1, true) });
    expect(await refusal(rows, { ...ranking, ...batches(4, true) }, 'invalid-argument')).toContain(
      'data gives single rows, which shuffling would tear apart',
    );
    expect(await refusal(rows, { ...ranking, ...batches(3) }, 'invalid-argument')).toContain(
      'data gives batches with an odd number of rows',
    );
  });
});

describe('samples that teach nothing', () => {
  const notesOf = async (columns: Columns, needs: DataNeeds) => {
    const notes: string[] = [];
    const dataset = await openDataset(folder.write(safetensors(columns), 'data.safetensors'));
    try {
      await checkDataset(dataset, needs, { onNote: (note) => notes.push(note.split(': ')[1]!) });
      return notes;
    } finally {
      dataset.close();
    }
  };
  const rows = (labels: number[]): Columns => ({ ...good, labels: ['int64', [2, 3], labels] });

  it('are counted', async () => {
    expect(await notesOf(rows([-100, 1, 2, -100, -100, -100]), causal)).toEqual([
      '1 of 2 samples teach nothing',
    ]);
    expect(await notesOf(good, classifier)).toEqual([]);
  });

  it('also where only the first token has a label, which nothing stands before', async () => {
    expect(await notesOf(rows([-100, 1, 2, 5, -100, -100]), causal)).toEqual([
      '1 of 2 samples teach nothing',
    ]);
    const { message } = await failure(
      () => notesOf(rows([4, -100, -100, 5, -100, -100]), causal),
      'invalid-data',
    );
    expect(message).toContain('key labels has no label that counts');
  });

  it('are those whose mask leaves one token, where ids are the labels', async () => {
    const { labels: _, ...own } = good;
    const masked = (values: number[]): Columns => ({
      ...own,
      attention_mask: ['int64', [2, 3], values],
    });
    expect(await notesOf(masked([1, 1, 0, 1, 0, 0]), causal)).toEqual([
      '1 of 2 samples teach nothing',
    ]);
    const { message } = await failure(
      () => notesOf(masked([1, 0, 0, 1, 0, 0]), causal),
      'invalid-data',
    );
    expect(message).toContain('key attention_mask leaves no token to predict');
  });
});

describe('labels of ctc that the frames cannot spell', () => {
  const spoken = (labels: number[], frames: number[]): Columns => ({
    ...speech,
    labels: ['int64', [2, 3], labels],
    label_lengths: ['int64', [2], [3, 3]],
    input_lengths: ['int64', [2], frames],
  });
  const notesOf = async (columns: Columns, needs: DataNeeds = ctc) => {
    const notes: string[] = [];
    const dataset = await openDataset(folder.write(safetensors(columns), 'data.safetensors'));
    try {
      await checkDataset(dataset, needs, { onNote: (note) => notes.push(note) });
      return notes.join();
    } finally {
      dataset.close();
    }
  };

  it('are told, with the blanks between repeated ones', async () => {
    expect(await notesOf(spoken([1, 2, 3, 1, 1, 2], [3, 3]))).toMatch(
      /1 of 2 samples have too few frames .* sample 1, with 3 labels, 1 of them repeated, in 3 frames/,
    );
    expect(await notesOf(spoken([1, 2, 3, 1, 1, 2], [3, 4]))).toBe('');
  });

  it('are left out where bad rows are to be, and are counted', async () => {
    const columns = spoken([1, 2, 3, 1, 1, 2], [3, 3]);
    const path = folder.write(safetensors(columns), 'data.safetensors');
    const dataset = await openDataset(path, {
      inputs: [],
      labelKind: 'spelling',
      skipBadRows: true,
    });
    const notes: string[] = [];
    await checkDataset(dataset, ctc, { onNote: (note) => notes.push(note) });
    expect(notes.join()).toMatch(
      /1 bad row is left out, for the frames cannot spell .*: sample 1$/,
    );
    expect([dataset.size, dataset.skipped]).toEqual([1, 1]);
    const { data } = (await dataset.batch([0], ['labels'])).get('labels')!;
    expect(data).toEqual(BigInt64Array.of(1n, 2n, 3n));
    dataset.close();
  });

  it('are an error where nothing else is left, as where the model has fewer frames', async () => {
    const needs = { ...ctc, frames: 2 };
    const run = () => notesOf(spoken([1, 2, 3, 1, 2, 3], [4, 4]), needs);
    const { message } = await failure(run, 'invalid-data');
    expect(message).toMatch(/no sample has frames enough to spell its labels: .* in 2 frames/);
  });
});
