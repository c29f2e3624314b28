import { expect, test } from 'vitest';
import { trimPadding } from '../../src/data/trim.js';
import type { ValueSpec } from '../../src/graph/builder.js';
import { openSession } from '../../src/runtime/session.js';
import { type TensorValue, tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import { zooModel } from '../support/zoo.js';

const int64 = (dims: number[], values: number[]): TensorValue => ({
  dtype: 'int64',
  dims,
  data: BigInt64Array.from(values, BigInt),
});

const inputs: ValueSpec[] = ['input_ids', 'attention_mask'].map((name) => ({
  name,
  dtype: 'int64',
  shape: ['batch', 'seq'],
}));

const feeds = new Map([
  ['input_ids', int64([2, 4], [5, 6, 7, 0, 8, 0, 0, 0])],
  ['attention_mask', int64([2, 4], [1, 1, 1, 0, 1, 0, 0, 0])],
  ['labels', int64([2], [0, 1])],
]);

const withFeed = (name: string, value: TensorValue) => new Map([...feeds, [name, value]]);

test('a batch is cut to its longest row', () => {
  const trimmed = trimPadding(feeds, inputs, -100);
  expect(trimmed.get('input_ids')).toEqual(int64([2, 3], [5, 6, 7, 8, 0, 0]));
  expect(trimmed.get('attention_mask')).toEqual(int64([2, 3], [1, 1, 1, 1, 0, 0]));
  expect(trimmed.get('labels')).toBe(feeds.get('labels'));
  expect(feeds.get('input_ids')!.dims).toEqual([2, 4]);
});

test('a mask that counts the tokens in a cache too has an axis of its own', () => {
  const cache: ValueSpec = {
    ...{ name: 'past_key_values.0.key', dtype: 'float32' },
    shape: ['batch', 2, 'past', 8],
  };
  const decoder = [{ ...inputs[0]!, shape: ['batch', 'tokens'] }, inputs[1]!, cache];
  const empty = { dtype: 'float32', dims: [2, 2, 0, 8], data: new Float32Array() } as const;
  const trimmed = trimPadding(withFeed(cache.name, empty), decoder, -100);
  expect(trimmed.get('input_ids')!.dims).toEqual([2, 3]);
  expect(trimmed.get('attention_mask')!.dims).toEqual([2, 3]);
});

test('labels of tokens are cut too, but not where one of them counts', () => {
  const ignored = int64([2, 4], [1, 2, 3, -100, 1, -100, -100, -100]);
  const trimmed = trimPadding(withFeed('labels', ignored), inputs, -100);
  expect(trimmed.get('labels')).toEqual(int64([2, 3], [1, 2, 3, 1, -100, -100]));
  const counting = withFeed('labels', int64([2, 4], [1, 2, 3, 9, 1, -100, -100, -100]));
  expect(trimPadding(counting, inputs, -100)).toBe(counting);
});

test('one position is left where everything is masked', () => {
  const masked = withFeed('attention_mask', int64([2, 4], Array(8).fill(0)));
  expect(trimPadding(masked, inputs, -100).get('input_ids')!.dims).toEqual([2, 1]);
});

test.each<[string, Map<string, TensorValue>, ValueSpec[]]>([
  ['nothing is padding', withFeed('attention_mask', int64([2, 4], Array(8).fill(1))), inputs],
  [
    'padding is on the left',
    withFeed('attention_mask', int64([2, 4], [0, 1, 1, 1, 0, 0, 0, 1])),
    inputs,
  ],
  ['the axis is fixed', feeds, inputs.map((input) => ({ ...input, shape: ['batch', 4] }))],
  ['the axis has no name', feeds, inputs.map((input) => ({ ...input, shape: ['batch', null] }))],
  [
    'an input of that length has another axis',
    feeds,
    [inputs[1]!, { ...inputs[0]!, shape: ['batch', 'other'] }],
  ],
  [
    'frames are floats',
    withFeed('input_ids', { dtype: 'float32', dims: [2, 4], data: new Float32Array(8) }),
    inputs,
  ],
  [
    'a target has that length',
    withFeed('target', { dtype: 'float32', dims: [2, 4], data: new Float32Array(8) }),
    inputs,
  ],
  ['there is no mask', new Map([['input_ids', feeds.get('input_ids')!]]), inputs],
])('a batch stays as it is where %s', (_, batch, specs) => {
  expect(trimPadding(batch, specs, -100)).toBe(batch);
});

test('a model gives the same for the cut batch', async () => {
  const session = await openSession(zooModel('bert-cls-torchscript'));
  const specs = session.inputs.map((input) => ({ ...input }));
  const shape = [2, 12];
  const values: Record<string, number[]> = {
    input_ids: Array.from({ length: 24 }, (_, i) => 3 + i),
    attention_mask: Array.from({ length: 24 }, (_, i) => Number(i % 12 < 7 - 3 * Number(i >= 12))),
    token_type_ids: Array(24).fill(0),
  };
  const batch = new Map(session.inputs.map(({ name }) => [name, int64(shape, values[name]!)]));
  const trimmed = trimPadding(batch, specs, -100);
  expect(trimmed.get('input_ids')!.dims).toEqual([2, 7]);
  const output = session.outputs[0]!.name;
  const whole = tensorToFloat64((await session.run(batch)).get(output)!);
  const cut = tensorToFloat64((await session.run(trimmed)).get(output)!);
  await session.release();
  expect(Math.max(...whole.map((value, i) => Math.abs(value - cut[i]!)))).toBeLessThan(1e-6);
});
