/** Data that do not fit: `train` and `eval` say where, before the first step. */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run, temporaryFolder } from '../cli/run.js';
import { insertInto } from '../support/adapters.js';
import { type Column, safetensors } from './data.js';

type Columns = Readonly<Record<string, Column>>;

/** Four samples of three ids for a classifier with three classes. */
const texts: Columns = {
  input_ids: ['int64', [4, 3], 5],
  attention_mask: ['int64', [4, 3], 1],
  labels: ['int64', [4], [0, 1, 2, 0]],
};

/** Four samples of a regression from 32 numbers to 8. */
const numbers: Columns = {
  x: ['float32', [4, 32], 0.5],
  target: ['float32', [4, 8], 0.25],
};

const without = (columns: Columns, key: string): Columns =>
  Object.fromEntries(Object.entries(columns).filter(([name]) => name !== key));

/** One number of many is `value`. */
const except = (count: number, at: number, value: number): number[] =>
  Array.from({ length: count }, (_, i) => (i === at ? value : 0.5));

const classifier = { model: 'bert-cls-torchscript', loss: 'cross-entropy' };
const regression = { model: 'mlp-regression', loss: 'mse' };

const cases: readonly [string, typeof classifier, Columns, RegExp][] = [
  [
    'a wrong shape',
    regression,
    { ...numbers, x: ['float32', [4, 31], 1] },
    /key x has shape \[4, 31\], the model's input takes \[.*, 32\]/,
  ],
  [
    'a wrong type',
    classifier,
    { ...texts, input_ids: ['float32', [4, 3], 5] },
    /key input_ids holds float32, the model's input takes int64/,
  ],
  [
    'a missing key',
    classifier,
    without(texts, 'attention_mask'),
    /has no key attention_mask for the model's input attention_mask, it has: input_ids, labels/,
  ],
  [
    'no labels',
    classifier,
    without(texts, 'labels'),
    /has no key labels for the loss cross-entropy/,
  ],
  [
    'a label out of range',
    classifier,
    { ...texts, labels: ['int64', [4], [0, 1, 3, 0]] },
    /key labels, sample 2: found 3, expected 0 to 2 \(3 classes\)/,
  ],
  [
    'an id out of range',
    classifier,
    { ...texts, input_ids: ['int64', [4, 3], [1, 1, 1, 1, 1, 1_000_000, 1, 1, 1, 1, 1, 1]] },
    /key input_ids, sample 1, element \[2\]: found 1000000, expected 0 to \d+/,
  ],
  [
    'no samples',
    regression,
    { x: ['float32', [0, 32], 0], target: ['float32', [0, 8], 0] },
    /holds 0 samples, expected some/,
  ],
  [
    'NaN in an input',
    regression,
    { ...numbers, x: ['float32', [4, 32], except(128, 97, Number.NaN)] },
    /key x, sample 3, element \[1\]: found NaN, expected a finite number/,
  ],
  [
    'infinity in a target',
    regression,
    { ...numbers, target: ['float32', [4, 8], except(32, 8, Number.POSITIVE_INFINITY)] },
    /key target, sample 1, element \[0\]: found Infinity, expected a finite number/,
  ],
  [
    'unequal lengths',
    classifier,
    { ...texts, labels: ['int64', [3], 0] },
    /its keys have different numbers of samples: .*input_ids.* \(4\); labels \(3\)/,
  ],
];

/** A folder with a patched model and a file of samples. */
async function folderWith(model: string, name: string, data: Uint8Array): Promise<string> {
  const folder = temporaryFolder({ 'model.onnx': `${model}/model.onnx` });
  const patched = await insertInto(join(folder, 'model.onnx'), { rank: 4 });
  writeFileSync(join(folder, 'model.lora.onnx'), patched);
  writeFileSync(join(folder, name), data);
  return folder;
}

/** The one line of the error, which names the file. */
async function refusal(
  folder: string,
  command: string,
  loss: string,
  file: string,
  ...more: string[]
) {
  const options = ['--data', file, '--loss', loss, '--provider', 'cpu', ...more];
  const { code, stdout, stderr } = await run(folder, [command, 'model.lora.onnx', ...options]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  const [line, hint] = stderr.split('\n');
  expect(line).toMatch(/^error: /);
  expect(line).toContain(more.length > 0 ? more.at(-1) : file);
  expect(hint).toMatch(/^( {2}\S.*)?$/);
  return line;
}

describe.each(cases)('%s', (_, { model, loss }, columns, message) => {
  it.each(['train', 'eval'])('is refused by %s', async (command) => {
    const folder = await folderWith(model, 'bad.safetensors', safetensors(columns));
    expect(await refusal(folder, command, loss, 'bad.safetensors')).toMatch(message);
  });
});

it('bad data to evaluate with are refused before the first step', async () => {
  const folder = await folderWith('mlp-regression', 'good.safetensors', safetensors(numbers));
  writeFileSync(join(folder, 'bad.safetensors'), safetensors(without(numbers, 'target')));
  const more = ['--log', 'run.jsonl', '--eval-data', 'bad.safetensors'];
  const line = await refusal(folder, 'train', 'mse', 'good.safetensors', ...more);
  expect(line).toMatch(/has no key target for the loss mse, it has: x/);
  expect(readdirSync(folder)).not.toContain('run.jsonl');
});

describe('a file that is no file of samples', () => {
  const whole = safetensors(numbers);

  it.each<[string, string, Uint8Array, RegExp]>([
    ['of another kind', 'data.txt', whole, /data\.txt is not a data file: its name ends in \.txt/],
    ['cut in its numbers', 'cut.safetensors', whole.subarray(0, -10), /cut\.safetensors/],
    ['cut in its header', 'cut.safetensors', whole.subarray(0, 20), /cut\.safetensors/],
    ['empty', 'cut.npz', new Uint8Array(), /cut\.npz/],
  ])('%s', async (_, file, bytes, message) => {
    const folder = await folderWith('mlp-regression', file, bytes);
    expect(await refusal(folder, 'train', 'mse', file)).toMatch(message);
  });
});
