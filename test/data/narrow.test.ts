import { expect, test } from 'vitest';
import { narrowFeeds } from '../../src/data/narrow.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';
import { failure } from '../support/files.js';

const int64 = (...values: number[]): TensorValue => ({
  dtype: 'int64',
  dims: [values.length],
  data: BigInt64Array.from(values, BigInt),
});

test('feeds become int32 where the graph takes that', () => {
  const feeds = new Map([
    ['labels', int64(-100, 2 ** 31 - 1)],
    ['other', int64(2 ** 40)],
  ]);
  const narrowed = narrowFeeds(feeds, new Set(['labels']));
  const data = Int32Array.of(-100, 2 ** 31 - 1);
  expect(narrowed.get('labels')).toEqual({ dtype: 'int32', dims: [2], data });
  expect(narrowed.get('other')).toEqual(int64(2 ** 40));
});

test('a number that int32 does not hold is refused', async () => {
  const feeds = new Map([['ids', int64(1, 2 ** 31)]]);
  const { message, hint } = await failure(
    () => narrowFeeds(feeds, new Set(['ids'])),
    'unsupported',
  );
  expect(message).toContain('ids holds 2147483648');
  expect(hint).toContain("`provider: 'cpu'`");
});
