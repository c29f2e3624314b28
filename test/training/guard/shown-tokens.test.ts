import { expect, test } from 'vitest';
import { withTokensShown } from '../../../src/training/guard/shown-tokens.js';
import { model, node, value } from '../../support/models.js';
import { parse } from '../../support/wire.js';

const feeds = new Map([
  ['x', { dtype: 'float32', dims: [1, 3], data: Float32Array.of(5, 6, 7) }],
  ['attention_mask', { dtype: 'int64', dims: [1, 3], data: BigInt64Array.of(1n, 1n, 0n) }],
] as const);

function modelOf(opType: string) {
  const nodes = [node(opType, ['x'], 'y')];
  const inputs = [value('x', [1, 3])];
  return parse(model({ nodes, initializers: [], inputs, outputs: [value('y', [1, 3])] }));
}

test('where the kernel leaves rows of padding to chance, all tokens are shown', () => {
  const shown = withTokensShown(modelOf('GroupQueryAttention'), feeds);
  expect(shown.get('attention_mask')!.data).toEqual(BigInt64Array.of(1n, 1n, 1n));
  expect(shown.get('x')).toBe(feeds.get('x'));
});

test('other models are compared on the batch as it is', () => {
  expect(withTokensShown(modelOf('Relu'), feeds)).toBe(feeds);
});
