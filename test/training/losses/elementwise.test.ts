import { describe, expect, test } from 'vitest';
import { array, expectLike, expectRecorded, normals, runLoss } from './run-loss.js';

const z = array([
  [0.5, -1.25, 2.0, 0.25],
  [1.5, 0.75, -0.5, -2.0],
  [-0.25, 0.0, 3.0, 1.0],
]);
const target = array([
  [1, 0, 0, 1],
  [0, 1, 1, 0],
  [0.5, 0.25, 1, 0],
]);

describe('mse', () => {
  // F.mse_loss of torch 2.15 in float64
  test("PyTorch's numbers", async () => {
    const found = await runLoss('mse', z, { target });
    expectRecorded(
      found,
      1.713541666667,
      [
        -0.0833333333, -0.2083333333, 0.3333333333, -0.125, 0.25, -0.0416666667, -0.25,
        -0.3333333333, -0.125, -0.0416666667, 0.3333333333, 0.1666666667,
      ],
    );
    expect(found.weight).toBe(12);
  });

  test.each([
    ['one number a row, with an axis of its own', [[2], [5]]],
    ['one number a row, without', [2, 5]],
  ])('[batch, 1] against %s', async (_, given) => {
    const options = { shape: ['batch', 1] };
    const found = await runLoss('mse', array([[1], [3]]), { target: array(given) }, options);
    expectRecorded(found, (1 + 4) / 2, [-1, -2]);
  });

  test('a target of another size is no broadcast', async () => {
    const given = { target: array([[1], [2], [3]]) };
    const run = runLoss('mse', z, given, { shape: ['batch', 'features'] });
    await expect(run).rejects.toThrow(/reshape/i);
  });
});

describe('bce', () => {
  // F.binary_cross_entropy_with_logits of torch 2.15 in float64
  test("PyTorch's numbers, with answers between 0 and 1", async () => {
    const found = await runLoss('bce', z, { target }, { dataKeys: ['x', 'target'] });
    expectRecorded(
      found,
      0.781174867942,
      [
        -0.0314617224, 0.0185583449, 0.0733997565, -0.0364852916, 0.0681312063, -0.0267351084,
        -0.0518716109, 0.0099335768, -0.0051813751, 0.0208333333, -0.0039521561, 0.0609215482,
      ],
    );
  });

  test("PyTorch's numbers, with weights of positive answers", async () => {
    const options = { dataKeys: ['x', 'target'], posWeight: [1, 3, 0.5, 2] };
    const found = await runLoss('bce', z, { target }, options);
    expectRecorded(
      found,
      0.879918439151,
      [
        -0.0314617224, 0.0185583449, 0.0733997565, -0.0729705832, 0.0681312063, -0.0802053252,
        -0.0259358055, 0.0099335768, -0.0051813751, 0, -0.001976078, 0.0609215482,
      ],
    );
  });

  const answers = [1, 0, 1, 1];
  const reference = (positive: number) => (values: readonly number[]) => {
    const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
    const terms = values.map((x, i) =>
      answers[i] === 1 ? -positive * Math.log(sigmoid(x)) : -Math.log(sigmoid(-x)),
    );
    return terms.reduce((a, b) => a + b) / terms.length;
  };

  test.each([11, 13, 18, 21])('labels 0 and 1 of a [batch] output, in opset %i', async (opset) => {
    const logits = normals([4], 5, 2);
    const options = { opset, posWeight: 2.5, shape: ['batch'] };
    const found = await runLoss('bce', logits, { labels: array(answers) }, options);
    expectLike(found, logits, reference(2.5));
  });

  test('labels 0 and 1 of a [batch, 1] output', async () => {
    const logits = normals([4, 1], 6);
    expectLike(await runLoss('bce', logits, { labels: array(answers) }), logits, reference(1));
  });

  test('logits far from 0 neither overflow nor lose the loss', async () => {
    const far = array([-300, 300, 300, -300]);
    const options = { dtype: 'float32' } as const;
    const found = await runLoss('bce', far, { labels: array(answers) }, options);
    expectRecorded(found, (300 + 300 + 0 + 300) / 4, [-0.25, 0.25, 0, -0.25], 1e-6);
  });
});

// Recorded with torch in float64: binary_cross_entropy_with_logits against y·0.8 + 0.1.
test('label smoothing pulls the answers of bce to one half', async () => {
  const z = array([
    [1.5, -0.5],
    [-2, 0.25],
  ]);
  const labels = array([
    [1, 0],
    [1, 1],
  ]);
  const options = { labelSmoothing: 0.2, posWeight: [2, 3] };
  expectRecorded(
    await runLoss('bce', z, { labels }, options),
    1.682592801456442,
    [-0.061652123808, 0.038262200639, -0.393378612039, -0.28147644938],
  );
});
