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

const z = array([
  [0.5, -1.25, 2.0, 0.25],
  [1.5, 0.75, -0.5, -2.0],
  [-0.25, 0.0, 3.0, 1.0],
]);
const teacher = array([
  [1, 0, 1.5, -1],
  [0, 2, 0.5, 0.25],
  [1, -1, 2.5, 0],
]);

// Recorded with torch 2.15 in float64:
// F.kl_div(F.log_softmax(z/T, -1), F.softmax(teacher/T, -1), reduction='batchmean') * T*T
test("PyTorch's batchmean", async () => {
  expectRecorded(
    await runLoss('kl', z, { teacher }),
    0.338964058049,
    [
      -0.0539491298, -0.029902601, 0.0578175916, 0.0260341392, 0.1740710062, -0.1214139071,
      -0.0209987357, -0.0316583634, -0.0451353706, 0.0060221241, 0.0227434161, 0.0163698304,
    ],
    // The teacher goes in as float32.
    1e-7,
  );
});

test("PyTorch's batchmean at temperature 2, times its square", async () => {
  expectRecorded(
    await runLoss('kl', z, { teacher }, { temperature: 2 }),
    0.478745681308,
    [
      -0.0536432504, -0.0611674996, 0.056861479, 0.0579492709, 0.1904374235, -0.0897980954,
      -0.0294886245, -0.0711507037, -0.0895200593, 0.0232557172, 0.0279221465, 0.0383421956,
    ],
    1e-7,
  );
});

test('positions whose label is ignored do not count, where the data have labels', async () => {
  const student = normals([2, 2, 3], 7);
  const given = normals([2, 2, 3], 8);
  const asFloat = { ...given, values: given.values.map(Math.fround) };
  const labels = array([
    [5, -100],
    [0, 1],
  ]);
  const reference = (values: readonly number[]) => {
    const q = rowsOf(asFloat.values, 3).map(logSoftmax);
    const p = rowsOf(values, 3).map(logSoftmax);
    const divergence = (i: number) =>
      q[i]!.reduce((sum, logq, c) => sum + Math.exp(logq) * (logq - p[i]![c]!), 0);
    return (divergence(0) + divergence(2) + divergence(3)) / 3;
  };
  const options = { dataKeys: ['teacher', 'labels'] };
  const found = await runLoss('kl', student, { teacher: asFloat, labels }, options);
  expectLike(found, student, reference);
  expect(found.weight).toBe(3);
});

test('a student that agrees with its teacher has loss 0 and gradient 0', async () => {
  const found = await runLoss('kl', z, { teacher: z }, { temperature: 3 });
  expectRecorded(found, 0, Array(12).fill(0), 1e-12);
});
