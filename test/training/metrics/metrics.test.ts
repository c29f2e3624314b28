import { describe, expect, test } from 'vitest';
import type { DataTypeName } from '../../../src/onnx/dtype.js';
import { type TensorValue, tensorFromNumbers } from '../../../src/runtime/tensor-value.js';
import { type LossName, metricsFor } from '../../../src/training/losses/index.js';
import { classification } from '../../../src/training/metrics/classification.js';
import type { MetricOptions } from '../../../src/training/metrics/metric.js';
import { collapse } from '../../../src/training/metrics/transcription.js';
import { array } from '../losses/run-loss.js';

function tensor(nested: unknown, dtype: DataTypeName = 'float32'): TensorValue {
  const { dims, values } = array(nested);
  return tensorFromNumbers(dtype, dims, Float64Array.from(values));
}

const integers = (nested: unknown) => tensor(nested, 'int64');

type Batch = readonly [logits: TensorValue, feeds: Readonly<Record<string, TensorValue>>];

function measure(loss: LossName, batches: readonly Batch[], options?: MetricOptions) {
  const metrics = metricsFor(loss, options);
  for (const [logits, feeds] of batches) metrics.add(logits, new Map(Object.entries(feeds)));
  return metrics.result();
}

/** Logits whose largest is at the given classes. */
function predicting(classes: readonly number[], of: number): number[][] {
  return classes.map((c) => Array.from({ length: of }, (_, i) => (i === c ? 1 : -i / 10)));
}

describe('cross-entropy', () => {
  // Labels 0 0 1 1 2 against 0 1 1 1 0.
  const batches: Batch[] = [
    [tensor(predicting([0, 1, 1], 4)), { labels: integers([0, 0, 1]) }],
    [tensor(predicting([1, 0, 3], 4)), { labels: integers([1, 2, -100]) }],
  ];

  test('accuracy and macro F1 over all batches, of classes that occur', () => {
    const { accuracy, f1 } = measure('cross-entropy', batches);
    expect(accuracy).toBe(3 / 5);
    // Class 0: 2·1/(2+2), class 1: 2·2/(2+3), class 2: 0; class 3 is predicted only where none counts.
    expect(f1).toBeCloseTo((1 / 2 + 4 / 5 + 0) / 3, 12);
  });

  test('what was taken for what', () => {
    const metrics = classification({});
    for (const [logits, feeds] of batches) metrics.add(logits, new Map(Object.entries(feeds)));
    const counts = [0, 1, 2].map((label) =>
      [0, 1, 2].map((p) => metrics.confusion!.count(label, p)),
    );
    expect(counts).toEqual([
      [1, 1, 0],
      [0, 2, 0],
      [1, 0, 0],
    ]);
  });

  test('tokens of half-precision logits', () => {
    const logits = tensor([predicting([2, 0], 3), predicting([1, 1], 3)], 'float16');
    const labels = integers([
      [2, 0],
      [0, 9],
    ]);
    expect(measure('cross-entropy', [[logits, { labels }]], { ignoreIndex: 9 }).accuracy).toBe(
      2 / 3,
    );
  });
});

test('perplexity and accuracy of the next label', () => {
  const [log2, log3] = [Math.log(2), Math.log(3)];
  // p = 1/2, 1/4, 1/4 and 3/5, 1/5, 1/5 at the positions that count.
  const logits = tensor([
    [
      [log2, 0, 0],
      [log3, 0, 0],
      [9, 9, 0],
    ],
    [
      [1000, 1000 - log2, 1000 - log2],
      [0, 0, 9],
      [0, 0, 9],
    ],
  ]);
  const labels = integers([
    [2, 0, 1],
    [1, 1, -100],
  ]);
  const { perplexity, accuracy } = measure('causal-lm', [[logits, { labels }]]);
  expect(perplexity).toBeCloseTo((1 / ((1 / 2) * (1 / 5) * (1 / 4))) ** (1 / 3), 4);
  expect(accuracy).toBe(1 / 3);
});

describe('mse', () => {
  test('error and R² of each column, over all batches', () => {
    const { mse, r2 } = measure('mse', [
      [tensor([[1, 10]]), { target: tensor([[1, 12]]) }],
      [
        tensor([
          [2, 10],
          [5, 10],
        ]),
        {
          target: tensor([
            [3, 12],
            [5, 12],
          ]),
        },
      ],
    ]);
    expect(mse).toBeCloseTo((0 + 4 + 1 + 4 + 0 + 4) / 6, 12);
    // Column 0: errors 1, deviations of 1 3 5: 8. Column 1 never changes and is never right.
    expect(r2).toBeCloseTo((1 - 1 / 8 + 0) / 2, 12);
  });

  test('single numbers a row', () => {
    const { r2 } = measure('mse', [[tensor([1, 2, 3]), { target: tensor([[1], [2], [4]]) }]]);
    expect(r2).toBeCloseTo(1 - 1 / (16 / 9 + 1 / 9 + 25 / 9), 12);
  });
});

describe('bce', () => {
  test('accuracy over all answers, F1 of yes a column', () => {
    const logits = tensor([
      [1, -1, -1],
      [2, 3, -1],
      [-1, 1, -1],
    ]);
    const target = tensor([
      [1, 0, 0],
      [0, 1, 0],
      [0.9, 0.8, 0.2],
    ]);
    const { accuracy, f1 } = measure('bce', [[logits, { target }]]);
    expect(accuracy).toBe(7 / 9);
    // Column 0: 2·1/(2+2), column 1: all right; there is no yes in column 2.
    expect(f1).toBeCloseTo((1 / 2 + 1) / 2, 12);
  });

  test('one answer a row', () => {
    const { accuracy, f1 } = measure('bce', [
      [tensor([0.1, -0.1, 2]), { labels: integers([1, 1, 0]) }],
    ]);
    expect(accuracy).toBe(1 / 3);
    expect(f1).toBeCloseTo(2 / (2 + 2), 12);
  });
});

describe('ctc', () => {
  test('greedy reading joins what repeats and drops blanks', () => {
    expect(collapse([0, 1, 1, 0, 1, 2, 2, 0], 0)).toEqual([1, 1, 2]);
    expect(collapse([3, 3, 0], 3)).toEqual([0]);
  });

  test('edits and exact rows, within the lengths', () => {
    const frames = (classes: readonly number[]) => predicting(classes, 4);
    const logits = tensor([
      frames([1, 1, 0, 1, 3]),
      frames([2, 0, 3, 3, 0]),
      frames([0, 0, 0, 0, 0]),
    ]);
    const batch = {
      labels: integers([
        [1, 1, 0],
        [2, 1, 3],
        [0, 0, 0],
      ]),
      input_lengths: integers([4, 2 ** 31 - 1, 5]),
      label_lengths: integers([2, 3, 0]),
    };
    expect(measure('ctc', [[logits, batch]])).toEqual({ cer: 1 / 5, exactMatch: 2 / 3 });
  });

  test('classes beyond 16 bits are told apart', () => {
    const batch = {
      labels: integers([[65537]]),
      input_lengths: integers([1]),
      label_lengths: integers([1]),
    };
    const logits = tensor([[Array.from({ length: 65538 }, (_, i) => Number(i === 1))]]);
    expect(measure('ctc', [[logits, batch]]).cer).toBe(1);
  });
});

test('recall among the positives of all batches, by direction', () => {
  const angle = (degrees: number, length = 1) => [
    length * Math.cos((degrees * Math.PI) / 180),
    length * Math.sin((degrees * Math.PI) / 180),
  ];
  // Anchors at 0°, 40°, 90°, 180°; positives at 10°, 12°, 80°, 175°. That of 40° is nearer than 10°.
  const first = tensor([angle(0), angle(40, 3), angle(10), angle(12, 0.1)]);
  const second = tensor([angle(90), angle(180), angle(80, 9), angle(175)]);
  const result = measure('mnr', [
    [first, {}],
    [second, {}],
  ]);
  expect(result).toEqual({ 'recall@1': 1, 'recall@5': 1, 'recall@10': 1 });
  const crossed = tensor([angle(0), angle(11), angle(30), angle(1)]);
  expect(measure('mnr', [[crossed, {}]])['recall@1']).toBe(0.5);
  // With negatives at 1° and 90°: the first is nearer to 0° than its own positive at 10°.
  const triples = tensor([angle(0), angle(40), angle(10), angle(39), angle(1), angle(90)]);
  expect(measure('mnr', [[triples, {}]], { group: 3 })['recall@1']).toBe(0.5);
});

test('agreement with the teacher, where the label counts', () => {
  const student = tensor(predicting([0, 1, 2, 2], 3));
  const teacher = tensor(predicting([0, 2, 2, 1], 3));
  const labels = integers([0, 0, 0, -100]);
  expect(measure('kl', [[student, { teacher }]]).agreement).toBe(2 / 4);
  expect(measure('kl', [[student, { teacher, labels }]]).agreement).toBe(2 / 3);
});
