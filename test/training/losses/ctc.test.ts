import { describe, expect, test } from 'vitest';
import { array, expectLike, expectRecorded, type Numbers, normals, runLoss } from './run-loss.js';

/** The definition: every way through the frames, added up. */
function allPaths({ dims }: Numbers, labels: number[][], frames: number[], blank = 0) {
  const [rows, frameCount, classes] = dims as [number, number, number];
  return (z: readonly number[]) => {
    const probabilities = (row: number, frame: number) => {
      const start = (row * frameCount + frame) * classes;
      const exps = z.slice(start, start + classes).map(Math.exp);
      const sum = exps.reduce((a, b) => a + b);
      return exps.map((e) => e / sum);
    };
    const spells = (path: number[], row: number) =>
      `${path.filter((c, i) => c !== blank && c !== path[i - 1])}` === `${labels[row]}`;
    const probability = (row: number, path: number[]): number => {
      if (path.length === frames[row]) return spells(path, row) ? 1 : 0;
      return probabilities(row, path.length)
        .map((p, c) => p * probability(row, [...path, c]))
        .reduce((a, b) => a + b);
    };
    const ofRow = (_: unknown, row: number) => {
      const p = probability(row, []);
      return p === 0 ? 0 : -Math.log(p) / Math.max(labels[row]!.length, 1);
    };
    return Array.from({ length: rows }, ofRow).reduce((a, b) => a + b) / rows;
  };
}

/** Labels as the data have them: one array, and how many are real. */
function padded(labels: readonly number[][], width: number, filler: number) {
  return {
    labels: array(labels.map((row) => [...row, ...Array(width - row.length).fill(filler)])),
    label_lengths: array(labels.map((row) => row.length)),
  };
}

// A doubled label, an empty one, one that is impossible in its frames, and one shorter than the batch.
const labels = [[1, 1], [], [2, 1, 2], [1, 2]];
const frames = [5, 4, 2, 3];

test.each([0, -100])('all ways to spell the labels, padded with %i', async (filler) => {
  const z = normals([4, 5, 3], 1);
  const given = { ...padded(labels, 3, filler), input_lengths: array(frames) };
  const found = await runLoss('ctc', z, given);
  expectLike(found, z, allPaths(z, labels, frames));
  expect(found.weight).toBe(4);
});

test.each([11, 13, 17, 18, 21])('sizes that are not known, in opset %i', async (opset) => {
  const z = normals([2, 4, 3], 2);
  const given = { ...padded([[2, 2], [1]], 2, 0), input_lengths: array([4, 2]) };
  const found = await runLoss('ctc', z, given, { opset, shape: [null, 'time', 3] });
  expectLike(found, z, allPaths(z, [[2, 2], [1]], [4, 2]));
});

test('another class can be the blank', async () => {
  const z = normals([2, 4, 3], 3);
  const given = { ...padded([[0, 1], [0]], 2, 0), input_lengths: array([4, 3]) };
  const found = await runLoss('ctc', z, given, { blank: 2 });
  expectLike(found, z, allPaths(z, [[0, 1], [0]], [4, 3], 2));
});

test('an impossible row has exactly loss 0 and gradient 0', async () => {
  const given = { ...padded([[1, 1, 2, 1]], 4, 0), input_lengths: array([4]) };
  const found = await runLoss('ctc', normals([1, 6, 3], 4), given, { dtype: 'float32' });
  expectRecorded(found, 0, Array(18).fill(0), Number.MIN_VALUE);
});

test('improbable labels and frames behind the end overflow nothing', async () => {
  const far = Array.from({ length: 18 }, (_, i) => [400, -400, 0][i % 3]!);
  const given = { ...padded([[1, 2], [1]], 2, 0), input_lengths: array([3, 2]) };
  const z = { dims: [2, 3, 3], values: far };
  const found = await runLoss('ctc', z, given, { dtype: 'float32' });
  // One frame for each label and blanks else: three ways in row 0, two in row 1.
  const [first, second] = [800 + 400 - Math.log(3), 800 - Math.log(2)];
  expect(found.loss).toBeCloseTo((first / 2 + second) / 2, 3);
  expect(found.gradient.every(Number.isFinite)).toBe(true);
  expect([...found.gradient.slice(15)]).toEqual([0, 0, 0]);
});

test('a batch without any label wants blanks', async () => {
  const z = normals([2, 3, 4], 5);
  const given = {
    labels: { dims: [2, 0], values: [] },
    label_lengths: array([0, 0]),
    input_lengths: array([3, 1]),
  };
  expectLike(await runLoss('ctc', z, given), z, allPaths(z, [[], []], [3, 1]));
});

// Recorded with torch 2.15 in float64: F.ctc_loss(F.log_softmax(z, -1).transpose(0, 1), labels,
// input_lengths, label_lengths, reduction='mean', zero_infinity=True)
test("PyTorch's numbers", async () => {
  const values = Array.from({ length: 60 }, (_, i) => {
    const [row, frame, c] = [Math.floor(i / 15), Math.floor(i / 3) % 5, i % 3];
    return (((row * 7 + frame * 5 + c * 3) % 11) - 5) / 4;
  });
  const z = { dims: [4, 5, 3], values };
  const given = { ...padded(labels, 3, 0), input_lengths: array(frames) };
  expectRecorded(
    await runLoss('ctc', z, given),
    2.271390264169,
    [
      -0.0127631035, -0.0609616044, 0.073724708, 0.0024776929, -0.0130001107, 0.0105224178,
      -0.0310928653, 0.0059050118, 0.0251878535, 0.0078170343, -0.0815417423, 0.073724708,
      -0.0161221916, -0.0090656619, 0.0251878535, -0.1765463063, 0.1555014707, 0.0210448356,
      -0.2170995882, 0.0696501723, 0.1474494159, -0.1765463063, 0.1555014707, 0.0210448356,
      -0.2170995882, 0.0696501723, 0.1474494159, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
      0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0376279761, -0.0628158296, 0.0251878535,
      0.0132355121, -0.0222666914, 0.0090311793, 0.0376279761, 0.0118978995, -0.0495258757, 0.0,
      0.0, 0.0, 0.0, 0.0, 0.0,
    ],
  );
});

describe('many frames', () => {
  const [rows, frameCount, classes] = [2, 1500, 30];
  const z = normals([rows, frameCount, classes], 6, 3);
  const long = Array.from({ length: 200 }, (_, i) => 1 + ((i * 7) % 29));
  const given = {
    ...padded([long, long.slice(0, 50)], 200, 0),
    input_lengths: array([frameCount, 700]),
  };

  test('float32 agrees with float64 as far as in PyTorch', async () => {
    const exact = await runLoss('ctc', z, given);
    const found = await runLoss('ctc', z, given, { dtype: 'float32' });
    expect(found.loss / exact.loss).toBeCloseTo(1, 5);
    const differences = found.gradient.map((slope, i) => slope - exact.gradient[i]!);
    expect(Math.hypot(...differences) / Math.hypot(...exact.gradient)).toBeLessThan(5e-3);
  });

  test('each frame pulls as much up as it pushes down', async () => {
    const { gradient } = await runLoss('ctc', z, given);
    for (let frame = 0; frame < rows * frameCount; frame++) {
      const sum = gradient.slice(frame * classes, (frame + 1) * classes).reduce((a, b) => a + b);
      expect(Math.abs(sum)).toBeLessThan(1e-10);
    }
  });
});
