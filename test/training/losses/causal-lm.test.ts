import { expect, test } from 'vitest';
import { array, expectLike, logSoftmax, normals, rowsOf, runLoss } from './run-loss.js';

test('each position predicts the next label, with one mean over all that count', async () => {
  const z = normals([2, 4, 5], 3);
  const labels = [
    [0, 3, 1, 4],
    [2, 2, -100, -100],
  ];
  const reference = (values: readonly number[]) => {
    const rows = rowsOf(values, 5).map(logSoftmax);
    const at = (row: number, position: number) =>
      rows[row * 4 + position]![labels[row]![position + 1]!]!;
    return -(at(0, 0) + at(0, 1) + at(0, 2) + at(1, 0)) / 4;
  };
  const found = await runLoss('causal-lm', z, { labels: array(labels) });
  expectLike(found, z, reference);
  expect(found.weight).toBe(4);
});

test('a single token predicts nothing', async () => {
  const found = await runLoss('causal-lm', normals([2, 1, 3], 4), { labels: array([[1], [2]]) });
  expect(found.loss).toBe(0);
  expect(found.gradient.every((slope) => slope === 0)).toBe(true);
});
