import { expect, test } from 'vitest';
import {
  array,
  expectLike,
  expectNumbers,
  expectRecorded,
  logSoftmax,
  rowsOf,
  runLoss,
} from './run-loss.js';

const z = array([
  [1.5, -0.5, 0.25],
  [-1, 2, 0.5],
  [3, 0, -2],
  [0.1, 0.2, 0.3],
]);
const labels = array([0, 2, 1, -100]);
const classWeights = [0.5, 1, 2];

/** Σ q·w·(1-p)^γ·(-log p) of the rows that count, over their weights. */
function focal(gamma: number, smoothing = 0, weights = [1, 1, 1]) {
  return (values: readonly number[]) => {
    let [sum, total] = [0, 0];
    rowsOf(values, 3).forEach((row, i) => {
      const label = labels.values[i]!;
      if (label === -100) return;
      total += weights[label]!;
      logSoftmax(row).forEach((logp, c) => {
        const target = (c === label ? 1 - smoothing : 0) + smoothing / 3;
        sum -= target * weights[c]! * (1 - Math.exp(logp)) ** gamma * logp;
      });
    });
    return sum / total;
  };
}

// Recorded with torch in float64: autograd of the formula with log_softmax.
test.each([
  {
    options: {},
    loss: 1.3297240077329244,
    gradient: [
      -0.023230670054, 0.007452893786, 0.015777776269, 0.01543130051, 0.309945956175,
      -0.325377256686, 0.37302431684, -0.375537734916, 0.002513418076, 0, 0, 0,
    ],
  },
  {
    options: { focalGamma: 0.5, classWeights },
    loss: 1.7830515473025748,
    gradient: [
      -0.032716534512, 0.01049616116, 0.022220373351, 0.024052919065, 0.483115794, -0.507168713065,
      0.283920808902, -0.285833852265, 0.001913043362, 0, 0, 0,
    ],
  },
  {
    options: { classWeights, labelSmoothing: 0.1 },
    loss: 1.5226864054921678,
    gradient: [
      0.014352595304, -0.005474186026, -0.008878409277, 0.019397972382, 0.500019124931,
      -0.519417097313, 0.317371635512, -0.299484615497, -0.017887020015, 0, 0, 0,
    ],
  },
])("is PyTorch's with $options", async ({ options, loss, gradient }) => {
  expectRecorded(await runLoss('focal', z, { labels }, options), loss, gradient);
});

test.each([
  [2, 0, undefined],
  [0.5, 0.2, classWeights],
  [1, 0.1, undefined],
  [0, 0.3, undefined],
] as const)(
  'has the gradient of its value with γ %d and smoothing %d',
  async (gamma, smoothing, weights) => {
    const options = { focalGamma: gamma, labelSmoothing: smoothing, classWeights: weights };
    const found = await runLoss('focal', z, { labels }, options);
    expectLike(found, z, focal(gamma, smoothing, weights ? [...weights] : undefined));
  },
);

test.each([{ classWeights, labelSmoothing: 0.1 }, { labelSmoothing: 0.3 }, {}])(
  'with γ 0 is cross-entropy, with $labelSmoothing',
  async (options) => {
    const found = await runLoss('focal', z, { labels }, { ...options, focalGamma: 0 });
    const plain = await runLoss('cross-entropy', z, { labels }, options);
    expect(found.loss).toBeCloseTo(plain.loss, 12);
    expect(found.weight).toBe(plain.weight);
    expectNumbers(found.gradient, [...plain.gradient], 1e-12);
  },
);

test.each(['float32', 'float16'] as const)(
  'of %s stays finite where a class is sure',
  async (dtype) => {
    const sure = array([
      [90, -90, 0],
      [-90, 90, 0],
      [12, 0, 0],
    ]);
    for (const focalGamma of [0, 0.5, 1, 2]) {
      const right = await runLoss(
        'focal',
        sure,
        { labels: array([0, 1, 0]) },
        { dtype, focalGamma },
      );
      expect(right.loss).toBeLessThan(1e-4);
      expect(right.gradient.every((g) => Math.abs(g) < 1e-4)).toBe(true);
      const wrong = await runLoss(
        'focal',
        sure,
        { labels: array([1, 0, 1]) },
        { dtype, focalGamma },
      );
      expect(wrong.loss).toBeCloseTo((180 + 180 + 12) / 3, 1);
      // What is nearly all wrong has the gradient of cross-entropy.
      expect(wrong.gradient[0]).toBeCloseTo(1 / 3, 5);
    }
  },
);

test('a batch of ignored labels has loss 0', async () => {
  const found = await runLoss('focal', z, { labels: array([-100, -100, -100, -100]) });
  expect(found.loss).toBe(0);
  expect(found.gradient.every((g) => g === 0)).toBe(true);
});
