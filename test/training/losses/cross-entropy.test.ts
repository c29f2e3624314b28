import { describe, expect, test } from 'vitest';
import { failure } from '../../support/files.js';
import {
  array,
  expectLike,
  expectNumbers,
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
const labels = array([2, -100, 1]);
const classWeights = [1, 0.5, 2, 0.25];

/** The definition, target by target: `weights[label]`-weighted mean of -Σ q·log softmax(z). */
function crossEntropy(
  labels: readonly number[],
  { classes = 4, smoothing = 0, weights = Array(classes).fill(1) as number[] } = {},
) {
  return (values: readonly number[]) => {
    let [sum, total] = [0, 0];
    rowsOf(values, classes).forEach((row, i) => {
      const label = labels[i]!;
      if (label === -100) return;
      total += weights[label]!;
      logSoftmax(row).forEach((logp, c) => {
        const target = (c === label ? 1 - smoothing : 0) + smoothing / classes;
        sum -= target * weights[c]! * logp;
      });
    });
    return sum / total;
  };
}

// Recorded with torch 2.15 in float64: F.cross_entropy(z, labels, …) and z.grad.
describe("PyTorch's numbers", () => {
  test('mean over the rows that count', async () => {
    expectRecorded(
      await runLoss('cross-entropy', z, { labels }),
      1.781838549338,
      [
        0.0777089681, 0.0135037938, -0.1517325671, 0.0605198052, 0, 0, 0, 0, 0.0158404759,
        -0.4796604264, 0.4085312571, 0.0552886934,
      ],
    );
  });

  test('label smoothing', async () => {
    expectRecorded(
      await runLoss('cross-entropy', z, { labels }, { labelSmoothing: 0.1 }),
      1.816213549338,
      [
        0.0652089681, 0.0010037938, -0.1142325671, 0.0480198052, 0, 0, 0, 0, 0.0033404759,
        -0.4421604264, 0.3960312571, 0.0427886934,
      ],
    );
  });

  test('class weights', async () => {
    const found = await runLoss('cross-entropy', z, { labels }, { classWeights });
    expectRecorded(
      found,
      0.929717876788,
      [
        0.1243343489, 0.0216060701, -0.2427721074, 0.0968316883, 0, 0, 0, 0, 0.0063361903,
        -0.1918641705, 0.1634125028, 0.0221154774,
      ],
    );
    expect(found.weight).toBe(2.5);
  });

  test('class weights and label smoothing', async () => {
    expectRecorded(
      await runLoss('cross-entropy', z, { labels }, { classWeights, labelSmoothing: 0.1 }),
      0.946008980309,
      [
        0.1077290866, 0.0154582476, -0.2123748391, 0.0891875049, 0, 0, 0, 0, -0.003109393,
        -0.1761522855, 0.1577110968, 0.0215505816,
      ],
    );
  });
});

test('tokens of a batch of sequences have one mean, whatever row they are in', async () => {
  const tokens = normals([2, 3, 5], 1);
  const found = await runLoss('cross-entropy', tokens, {
    labels: array([
      [4, 0, 1],
      [2, -100, -100],
    ]),
  });
  expectLike(found, tokens, crossEntropy([4, 0, 1, 2, -100, -100], { classes: 5 }));
  expect(found.weight).toBe(4);
});

test.each([11, 12, 13, 17, 18, 21])(
  'in opset %i, and with sizes that are not known',
  async (opset) => {
    const rows = normals([3, 4], 2);
    const options = { opset, shape: ['batch', null], labelSmoothing: 0.2, classWeights };
    const found = await runLoss('cross-entropy', rows, { labels: array([3, 0, -100]) }, options);
    const reference = crossEntropy([3, 0, -100], { smoothing: 0.2, weights: classWeights });
    expectLike(found, rows, reference);
  },
);

test.each(['cross-entropy', 'focal'] as const)(
  '%s is told of a class without weight whose samples would still move it',
  async (loss) => {
    const options = { classWeights: [1, 0, 2, 1], labelSmoothing: 0.1 };
    const smoothed = () => runLoss(loss, z, { labels }, options);
    const { message } = await failure(smoothed, 'invalid-argument');
    expect(message).toContain('class 1 has the weight 0, and with `labelSmoothing`');
    const plain = await runLoss(loss, z, { labels }, { ...options, labelSmoothing: 0 });
    expect(plain.weight).toBeGreaterThan(0);
  },
);

test('another number can stand for ignored labels', async () => {
  const options = { ignoreIndex: 0 };
  const found = await runLoss('cross-entropy', z, { labels: array([2, 0, 1]) }, options);
  expect(found.loss).toBeCloseTo(crossEntropy([2, -100, 1])(z.values), 10);
});

test('a batch in which no label counts has loss 0 and gradient 0', async () => {
  const found = await runLoss('cross-entropy', z, { labels: array([-100, -100, -100]) });
  expectRecorded(found, 0, Array(12).fill(0), Number.MIN_VALUE);
  expect(found.weight).toBe(0);
});

test('logits far apart neither overflow nor lose the loss', async () => {
  const far = array([
    [3e4, 0, -3e4],
    [-500, -510, -490],
  ]);
  const found = await runLoss(
    'cross-entropy',
    far,
    { labels: array([2, 0]) },
    { dtype: 'float32' },
  );
  expect(found.loss).toBeCloseTo((6e4 + Math.log(Math.exp(10) + 1 + Math.exp(-10))) / 2, 2);
  expectNumbers(found.gradient, [0.5, 0, -0.5, -0.4999773, 0, 0.4999773], 1e-7);
});

test('half-precision logits are widened before anything is added up', async () => {
  const ones = array([Array(5000).fill(1)]);
  const found = await runLoss('cross-entropy', ones, { labels: array([7]) }, { dtype: 'float16' });
  expect(found.loss).toBeCloseTo(Math.log(5000), 4);
});
