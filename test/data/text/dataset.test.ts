import { describe, expect, it } from 'vitest';
import type { Dataset } from '../../../src/data/dataset.js';
import { openDataset } from '../../../src/data/open-dataset.js';
import type { DataRequest } from '../../../src/data/request.js';
import { dataTypeNumber } from '../../../src/onnx/dtype.js';
import type { ValueInfo } from '../../../src/onnx/model.js';
import { labelRequest } from '../../../src/training/losses/index.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { recorded, tokenizerPath } from './tokenizers.js';

const folder = temporaryFolder();

function input(name: string, shape: ValueInfo['shape'], type = 'int64' as const): ValueInfo {
  return { name, shape, dataType: dataTypeNumber(type) } as ValueInfo;
}

const SEQUENCE = ['batch', 'tokens'];

const bert = [
  input('input_ids', SEQUENCE),
  input('attention_mask', SEQUENCE),
  input('token_type_ids', SEQUENCE),
];

const request: DataRequest = {
  inputs: bert,
  ...labelRequest('cross-entropy'),
  tokenizer: tokenizerPath('wordpiece'),
};

function open(rows: readonly object[] | string, more: Partial<DataRequest> = {}, name = 'x.jsonl') {
  const text = typeof rows === 'string' ? rows : rows.map((row) => JSON.stringify(row)).join('\n');
  return openDataset(folder.write(Buffer.from(text), name), { ...request, ...more });
}

/** A batch as nested lists. */
async function listsOf(dataset: Dataset, indices: readonly number[]) {
  const batch = await dataset.batch(indices);
  dataset.close();
  const lists = [...batch].map(([key, { dims, data }]) => {
    const width = data.length / dims[0]!;
    const row = (i: number) => Array.from(data.slice(i * width, (i + 1) * width), Number);
    return [
      key,
      dims.length === 1
        ? Array.from(data, Number)
        : Array.from({ length: dims[0]! }, (_, i) => row(i)),
    ];
  });
  return Object.fromEntries(lists);
}

/** What transformers makes of a text, or of a pair. */
function encodingOf(...texts: string[]) {
  const all = recorded('wordpiece').filter(({ maxLength }) => maxLength === null);
  return all.find((one) => one.texts.join() === texts.join())!;
}

const short = 'the model reads its input';
const long = 'The Model, READS: its (input)!';

describe('texts', () => {
  it('are ids, masks and types, padded to the longest of their batch', async () => {
    const dataset = await open([
      { text: short, label: 1 },
      { text: long, label: 0 },
    ]);
    const [a, b] = [encodingOf(short).ids, encodingOf(long).ids];
    const padding = Array.from({ length: b.length - a.length }, () => 0);
    expect(await listsOf(dataset, [0, 1])).toEqual({
      input_ids: [[...a, ...padding], b],
      attention_mask: [[...a.map(() => 1), ...padding], b.map(() => 1)],
      token_type_ids: [b.map(() => 0), b.map(() => 0)],
      labels: [1, 0],
    });
  });

  it('in pairs have types that tell them apart', async () => {
    const [first, second] = [
      'the model reads',
      'its input is a long row of tokens that has to be cut',
    ];
    const csv = `premise,hypothesis,label\n${first},${second},0\n`;
    const { input_ids, token_type_ids } = await listsOf(await open(csv, {}, 'x.csv'), [0]);
    const { ids, types } = encodingOf(first, second);
    expect({ input_ids, token_type_ids }).toEqual({ input_ids: [ids], token_type_ids: [types] });
  });

  it('are cut, or are bad rows where that is not wanted', async () => {
    const rows = [{ text: long, label: 0 }];
    const { input_ids } = await listsOf(await open(rows, { maxLength: 12 }), [0]);
    const cut = recorded('wordpiece').find((one) => one.texts[0] === long && one.maxLength === 12);
    expect(input_ids).toEqual([cut!.ids]);
    const whole = open(rows, { maxLength: 12, truncate: false });
    const { message } = await failure(() => whole, 'invalid-data');
    const { length } = encodingOf(long).ids;
    expect(message).toContain(`x.jsonl:1: its text has ${length} tokens, expected at most 12`);
  });

  it('fill what the model calls its inputs, in its types, at its length', async () => {
    const inputs = [
      input('input_ids', ['n', 16], 'int32' as never),
      input('input_mask', ['n', 16], 'float32' as never),
      input('position_ids', ['n', 16]),
    ];
    const dataset = await open([{ text: short, label: 0 }], { inputs });
    const { dtype } = dataset.keys.get('input_mask')!;
    const { input_ids, input_mask, position_ids } = await listsOf(dataset, [0]);
    const { ids } = encodingOf(short);
    const rest = Array.from({ length: 16 - ids.length }, () => 0);
    expect(dtype).toBe('float32');
    expect(input_ids).toEqual([[...ids, ...rest]]);
    expect(input_mask).toEqual([[...ids.map(() => 1), ...rest]]);
    expect(position_ids).toEqual([[...ids.map((_, i) => i), ...rest]]);
  });

  it('leave a cache of keys and values empty', async () => {
    const past = input('past_key_values.0.key', ['batch', 2, 'past', 8], 'float32' as never);
    const inputs = [...bert.slice(0, 2), past];
    const dataset = await open([{ text: short, label: 0 }], { inputs });
    const batch = await dataset.batch([0]);
    expect(batch.get('past_key_values.0.key')!.dims).toEqual([1, 2, 0, 8]);
    dataset.close();
  });

  it('cannot feed everything', async () => {
    const inputs = [...bert, input('head_mask', ['batch'])];
    const { message } = await failure(() => open([{}], { inputs }), 'unsupported');
    expect(message).toMatch(/nothing in a text makes the model's input head_mask/);
    const noTokenizer = failure(() => open([{}], { tokenizer: undefined }), 'invalid-argument');
    expect((await noTokenizer).hint).toMatch(/`tokenizer`/);
  });

  it('to compare are rows of one sample each', async () => {
    const dataset = await open([{ anchor: short, positive: long, negative: short }], {
      ...labelRequest('mnr'),
    });
    const batch = await dataset.batch([0], ['input_ids']);
    const { dims, data } = batch.get('input_ids')!;
    const length = encodingOf(long).ids.length;
    expect(dims).toEqual([1, 3, length]);
    const rows = [0, 1, 2].map((i) => Array.from(data.slice(i * length, (i + 1) * length), Number));
    expect(rows[1]).toEqual(encodingOf(long).ids);
    expect(rows[2]).toEqual(rows[0]);
    dataset.close();
  });

  it('are all predicted by a language model, but for padding', async () => {
    const rows = [{ text: short }, { text: long }];
    const { labels } = await listsOf(await open(rows, labelRequest('causal-lm')), [0, 1]);
    const { ids } = encodingOf(short);
    const ignored = Array.from({ length: encodingOf(long).ids.length - ids.length }, () => -100);
    expect(labels).toEqual([[...ids, ...ignored], encodingOf(long).ids]);
  });
});

describe('labels', () => {
  const named = ['so', 'bad', 'good', 'bad'].map((label) => ({ text: short, label }));

  it('that are names are numbered in their order', async () => {
    const dataset = await open(named);
    expect(dataset.classes).toEqual(['bad', 'good', 'so']);
    expect((await listsOf(dataset, [0, 1, 2, 3])).labels).toEqual([2, 0, 1, 0]);
  });

  it('that are whole numbers are the classes, also as text', async () => {
    const dataset = await open(`text,label\na,10\nb,2\n`, {}, 'x.csv');
    expect(dataset.classes).toBeUndefined();
    expect(dataset.keys.get('labels')!.range).toEqual([2, 10]);
    expect((await listsOf(dataset, [0, 1])).labels).toEqual([10, 2]);
  });

  it('keep the numbers that a file or the model gives their names', async () => {
    const labels = folder.write(Buffer.from('good\nso\nbad\n'), 'labels.txt');
    expect((await listsOf(await open(named, { labels }), [0, 1, 2])).labels).toEqual([1, 2, 0]);
    const classes = ['so', 'good', 'bad'];
    expect((await listsOf(await open(named, { classes }), [0, 1, 2])).labels).toEqual([0, 2, 1]);
  });

  it('that are not known are bad rows', async () => {
    const classes = ['good', 'bad'];
    const { message } = await failure(() => open(named, { classes }), 'invalid-data');
    expect(message).toMatch(/x\.jsonl:1: its label is "so", expected one of good, bad$/);
    const dataset = await open(named, { classes, skipBadRows: true });
    expect([dataset.size, dataset.skipped]).toEqual([3, 1]);
    dataset.close();
  });

  it('are numbers for mse, and sets of classes for bce', async () => {
    const scores = [
      { text: short, score: 0.5 },
      { text: short, score: -2 },
    ];
    expect((await listsOf(await open(scores, labelRequest('mse')), [0, 1])).target).toEqual([
      0.5, -2,
    ]);
    const sets = [['b', 'a'], [], ['c']].map((labels) => ({ text: short, labels }));
    expect((await listsOf(await open(sets, labelRequest('bce')), [0, 1, 2])).target).toEqual([
      [1, 1, 0],
      [0, 0, 0],
      [0, 0, 1],
    ]);
    const answers = [
      [0, 1],
      [1, 1],
    ].map((labels) => ({ text: short, labels }));
    expect((await listsOf(await open(answers, labelRequest('bce')), [0, 1])).target).toEqual([
      [0, 1],
      [1, 1],
    ]);
  });
});

describe('bad rows', () => {
  it.each([
    ['{"text": "a"}', /x\.jsonl:2: the field label is missing, it has: text$/],
    ['{"text": "", "label": 1}', /x\.jsonl:2: the field text is empty/],
    ['{"text": " \\n", "label": 1}', /x\.jsonl:2: the field text is empty/],
    ['{"text": null, "label": 1}', /x\.jsonl:2: the field text is null/],
    ['{"text": 7, "label": 1}', /x\.jsonl:2: the field text holds 7, expected a text/],
    [
      '{"text": "a", "label": 1.5}',
      /x\.jsonl:2: its label is 1\.5, expected the name or the number/,
    ],
    ['{"text": "a", "label": ""}', /x\.jsonl:2: its label is "", expected/],
  ])('as %s are named', async (row, message) => {
    const rows = `{"text": "a", "label": 1}\n${row}\n`;
    expect((await failure(() => open(rows), 'invalid-data')).message).toMatch(message);
  });

  it('may be of fields that are called otherwise', async () => {
    const rows = [{ Text: 'a', label: 1 }];
    const none = await failure(() => open(rows), 'invalid-argument');
    expect(none.message).toMatch(/the first row has: Text, label/);
    const wrong = await failure(() => open(rows, { textField: 'text' }), 'invalid-data');
    expect(wrong.hint).toMatch(/Is it Text\?/);
  });
});

describe('a tokenizer without a token for what is unknown', () => {
  const tokenizer = () =>
    folder.write(
      Buffer.from(
        JSON.stringify({
          model: {
            type: 'WordPiece',
            vocab: { ab: 0, '##ba': 1 },
            unk_token: '?',
            continuing_subword_prefix: '##',
          },
        }),
      ),
      'tokenizer.json',
    );
  const rows = ['ab', 'abba', 'xy', 'ab'].map((text, i) => ({ text, label: `c${i % 2}` }));

  it('makes a bad row of a text that it has no tokens for, before the first batch', async () => {
    const { message } = await failure(() => open(rows, { tokenizer: tokenizer() }), 'invalid-data');
    expect(message).toMatch(/x\.jsonl:3: .*"\?" is in none of its tokens/);
  });

  it('leaves such rows out where that is asked for', async () => {
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    const dataset = await open(rows, { tokenizer: tokenizer(), skipBadRows: true, onNote });
    expect([dataset.size, dataset.skipped]).toEqual([3, 1]);
    expect(notes.join()).toContain('x.jsonl:3');
    expect((await listsOf(dataset, [0, 1, 2])).input_ids).toEqual([
      [0, 0],
      [0, 1],
      [0, 0],
    ]);
  });
});

it('a text that takes too long is a bad row', async () => {
  const rows = [short, 'a'.repeat(150_000)].map((text, i) => ({ text, label: `c${i}` }));
  const options = { tokenizer: tokenizerPath('unigram'), truncate: false, maxLength: 128 };
  const { message } = await failure(() => open(rows, options), 'invalid-data');
  expect(message).toMatch(/x\.jsonl:2: .*150000 characters cannot be tokenized/);
});
