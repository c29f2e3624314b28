import { describe } from 'vitest';
import type { GraphBuilder } from '../../src/graph/builder.js';
import { gradients, int, text } from './operators.js';

const opset18 = { opset: 18 };

function indices(g: GraphBuilder, dims: number[], ...values: number[]): string {
  return g.constant('int64', dims, values);
}

describe('Gather', () => {
  gradients(
    'rows by a table of indices, some of them twice',
    (g, [x]) => g.op('Gather', [x!, indices(g, [2, 2], 0, 3, 3, 1)]),
    [[4, 3]],
  );
  gradients(
    'another axis, from its end',
    (g, [x]) => g.op('Gather', [x!, indices(g, [3], 2, 2, -1)], { axis: int(1) }),
    [[2, 4, 3]],
  );
  gradients(
    'by indices in 32 bits',
    (g, [x]) => g.op('Gather', [x!, g.constant('int32', [3], [0, 3, 3])]),
    [[4, 3]],
  );
  gradients(
    'one of an axis',
    (g, [x]) => g.op('Gather', [x!, indices(g, [], 2)], { axis: int(-1) }),
    [[2, 4]],
  );
});

describe('GatherElements and GatherND', () => {
  gradients(
    'GatherElements',
    (g, [x]) => g.op('GatherElements', [x!, indices(g, [2, 2], 0, 2, 1, 1)], { axis: int(1) }),
    [[2, 3]],
  );
  gradients('rows', (g, [x]) => g.op('GatherND', [x!, indices(g, [3, 1], 2, 0, 2)]), [[3, 4]]);
  gradients('elements', (g, [x]) => g.op('GatherND', [x!, indices(g, [2, 2], 2, 0, -1, 1)]), [
    [3, 4],
  ]);
  gradients(
    'rows of each batch element',
    (g, [x]) => g.op('GatherND', [x!, indices(g, [2, 2, 1], 2, 0, 2, 2)], { batch_dims: int(1) }),
    [[2, 3, 2]],
  );
  gradients(
    'Compress',
    (g, [x]) => g.op('Compress', [x!, g.constant('bool', [3], [1, 0, 1])], { axis: int(1) }),
    [[2, 3]],
  );
});

describe('Scatter', () => {
  for (const reduction of ['none', 'add']) {
    const attributes = { reduction: text(reduction) };
    gradients(
      `ScatterElements ${reduction}`,
      (g, [x, u]) => {
        const at = indices(g, [2, 2], 0, 2, 1, -3);
        return g.op('ScatterElements', [x!, at, u!], { axis: int(1), ...attributes });
      },
      [
        [2, 3],
        [2, 2],
      ],
      opset18,
    );
    gradients(
      `ScatterND ${reduction}`,
      (g, [x, u]) => g.op('ScatterND', [x!, indices(g, [2, 1], 2, 0), u!], attributes),
      [
        [3, 2],
        [2, 2],
      ],
      opset18,
    );
  }
  gradients(
    'ScatterND that adds to a row twice',
    (g, [x, u]) =>
      g.op('ScatterND', [x!, indices(g, [2, 1], 1, 1), u!], { reduction: text('add') }),
    [
      [3, 2],
      [2, 2],
    ],
    opset18,
  );
});

describe('Scatter to one place twice', () => {
  // ONNX leaves open which update stays; it is the last one in ONNX Runtime.
  gradients(
    'ScatterElements',
    (g, [x, u]) =>
      g.op('ScatterElements', [x!, indices(g, [2, 3], 0, 0, 3, -1, 1, 1), u!], { axis: int(1) }),
    [
      [2, 4],
      [2, 3],
    ],
    opset18,
  );
  gradients(
    'ScatterND',
    (g, [x, u]) => g.op('ScatterND', [x!, indices(g, [3, 1], 1, 0, 1), u!]),
    [
      [3, 2],
      [3, 2],
    ],
    opset18,
  );
});

describe('TopK', () => {
  const topK = (name: string, attributes: Record<string, { int: number }>) =>
    gradients(name, (g, [x]) => g.ops('TopK', [x!, g.integers([2])], 2, attributes)[0]!, [[3, 5]]);
  topK('the largest', {});
  topK('the smallest', { largest: int(0) });
  topK('of another axis, in no order', { axis: int(0), sorted: int(0) });
});

describe('OneHot', () => {
  for (const axis of [-1, 0]) {
    gradients(
      `the two values, axis ${axis}`,
      (g, [values]) => {
        const indices = g.constant('int64', [4], [0, 2, -1, 7]);
        return g.op('OneHot', [indices, g.scalar('int64', 3), values!], { axis: int(axis) });
      },
      [[2]],
      { dtype: 'float32', polynomial: true },
    );
  }
});
