import { expect, test } from 'vitest';
import { partsOf } from '../../../src/training/losses/row-parts.js';

test('logits of up to 32 MiB are computed at once', () => {
  expect(partsOf(256, 32_768)).toBe(1);
  expect(partsOf(257, 32_768)).toBe(2);
});

test('a part of a long text with a large vocabulary has 64 rows', () => {
  expect(partsOf(2048, 131_072)).toBe(32);
  expect(partsOf(2048, 262_144)).toBe(32);
});

test('few rows stay together', () => expect(partsOf(100, 262_144)).toBe(1));

test('rows whose number is not known stay together', () => expect(partsOf(undefined, 1e6)).toBe(1));
