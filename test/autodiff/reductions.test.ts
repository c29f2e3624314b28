import { describe } from 'vitest';
import { gradients, int, ints, operator, scalar } from './operators.js';

const names = [
  'ReduceL1',
  'ReduceL2',
  'ReduceLogSum',
  'ReduceLogSumExp',
  'ReduceMax',
  'ReduceMean',
  'ReduceMin',
  'ReduceProd',
  'ReduceSum',
  'ReduceSumSquare',
];

for (const name of names) {
  const options = name === 'ReduceLogSum' ? { domain: (z: number) => Math.abs(z) + 0.3 } : {};
  describe(name, () => {
    operator(name, [[2, 3, 2]], { ...options, opset: 13 });
    if (name !== 'ReduceSum') {
      const attributes = { axes: ints(1, -1), keepdims: int(0) };
      operator(name, [[2, 3, 2]], { ...options, attributes, opset: 13 });
    }
    for (const keepdims of [0, 1]) {
      gradients(
        `with its axes as an input, keepdims ${keepdims}`,
        (g, [x]) => g.op(name, [x!, g.integers([1])], { keepdims: int(keepdims) }),
        [[2, 3, 2]],
        { ...options, opset: 18 },
      );
    }
    gradients(
      'of all axes to a scalar',
      (g, [x]) => g.op(name, [x!], { keepdims: int(0) }),
      [[2, 3]],
      { ...options, opset: 18 },
    );
  });
}

describe('special values', () => {
  gradients(
    'ReduceSum over no axes is the identity',
    (g, [x]) => g.op('ReduceSum', [x!, g.integers([])], { noop_with_empty_axes: int(1) }),
    [[2, 3]],
  );
  for (const name of ['ReduceMax', 'ReduceMin', 'ReduceMean', 'ReduceProd']) {
    gradients(
      `${name} over no axes is the identity`,
      (g, [x]) => g.op(name, [x!, g.integers([])], { noop_with_empty_axes: int(1) }),
      [[2, 3]],
      { opset: 18, symbols: 'none' },
    );
  }
  // One zero, two zeros and none in a row.
  const withZeros = [1, 0, 2, 0, 3, 0, 1, 2, 3];
  gradients(
    'ReduceProd where numbers are 0',
    (g, [x]) => {
      const zeros = g.constant('float64', [3, 3], withZeros);
      return g.op('ReduceProd', [g.op('Mul', [x!, zeros]), g.integers([1])]);
    },
    [[3, 3]],
    { opset: 18, domain: (z) => Math.abs(z) + 0.5 },
  );
  gradients(
    'ReduceL2 of zeros has the gradient 0',
    (g, [x]) => {
      const row = g.op('Mul', [x!, g.constant('float64', [2, 1], [1, 0])]);
      return g.op('ReduceL2', [row, g.integers([1])]);
    },
    [[2, 3]],
    { opset: 18 },
  );
  gradients(
    'ReduceMean of a product, as pooling over tokens is',
    (g, [x]) => g.op('ReduceMean', [g.op('Mul', [x!, scalar(g, 3)])], { axes: ints(1) }),
    [[2, 3, 4]],
  );
});
