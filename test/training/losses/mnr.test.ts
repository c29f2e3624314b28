import { expect, test } from 'vitest';
import {
  array,
  expectLike,
  expectRecorded,
  logSoftmax,
  normals,
  rowsOf,
  runLoss,
} from './run-loss.js';

// Recorded with torch 2.15 in float64: with n = F.normalize(z),
// F.cross_entropy(20 * n[:2] @ n[2:].T, torch.arange(2))
test("PyTorch's numbers", async () => {
  const z = array([
    [1, 0.5, -0.5],
    [0.75, -0.25, 0.5],
    [0.75, 0.75, 0.25],
    [1, -0.5, 0.25],
  ]);
  expectRecorded(
    await runLoss('mnr', z, {}),
    0.001218097843,
    [
      0.0080925703, -0.0187143962, -0.0025292556, 0.0002602863, 0.0015384555, 0.0003787983,
      -0.0057138909, 0.0014645149, 0.012748128, 0.0085669489, 0.0118744894, -0.0105188166,
    ],
  );
});

test.each([
  [11, 2],
  [13, 2],
  [18, 2],
  [18, 3],
] as const)('sizes that are not known, in opset %i, %i rows a sample', async (opset, group) => {
  const z = normals([3 * group, 4], 9);
  const scale = 5;
  const candidates = Array.from({ length: 3 * (group - 1) }, (_, i) => i);
  const reference = (values: readonly number[]) => {
    const e = rowsOf(values, 4).map((row) => row.map((x) => x / Math.hypot(...row)));
    const cosine = (a: number, c: number) =>
      e[a]!.reduce((sum, x, i) => sum + x * e[3 + c]![i]!, 0);
    const rows = [0, 1, 2].map((a) => logSoftmax(candidates.map((c) => scale * cosine(a, c)))[a]!);
    return -(rows[0]! + rows[1]! + rows[2]!) / 3;
  };
  const found = await runLoss('mnr', z, {}, { opset, scale, group, shape: [null, null] });
  expectLike(found, z, reference);
  expect(found.weight).toBe(3);
});

test('an embedding of zeros gives no NaN', async () => {
  const found = await runLoss(
    'mnr',
    array([
      [0, 0],
      [1, 0],
      [0, 1],
      [1, 1],
    ]),
    {},
    { dtype: 'float32' },
  );
  expect(Number.isFinite(found.loss)).toBe(true);
  expect(found.gradient.every(Number.isFinite)).toBe(true);
});
