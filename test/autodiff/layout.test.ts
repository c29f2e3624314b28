import { describe, test } from 'vitest';
import type { GraphBuilder } from '../../src/graph/builder.js';
import { type Case, checkGradients } from './check.js';

type Build = Case['build'];

function check(name: string, shapes: Case['shapes'], build: Build, options: Partial<Case> = {}) {
  for (const dynamic of [false, true]) {
    test(`${name} ${JSON.stringify(shapes)}${dynamic ? ' dynamic' : ''}`, () =>
      checkGradients({ build, shapes, dtype: 'float32', dynamic, opset: 18, ...options }));
  }
}

const ints = (...values: number[]) => ({ ints: values });

describe('layout', () => {
  check('Transpose', [[2, 3, 4]], (g, [x]) => g.op('Transpose', [x!], { perm: ints(2, 0, 1) }));
  check('Reshape', [[2, 6]], (g, [x]) => g.op('Reshape', [x!, g.integers([3, -1])]));
  check('Flatten', [[2, 3, 2]], (g, [x]) => g.op('Flatten', [x!]));
  check('Unsqueeze', [[2, 3]], (g, [x]) => g.op('Unsqueeze', [x!, g.integers([1])]));
  check('Squeeze', [[2, 1, 3]], (g, [x]) => g.op('Squeeze', [x!, g.integers([1])]), {
    dynamic: false,
  });
  check('Expand', [[2, 1, 3]], (g, [x]) => g.op('Expand', [x!, g.integers([2, 4, 3])]));
  check(
    'Concat',
    [
      [2, 3],
      [2, 2],
      [2, 1],
    ],
    (g, x) => g.op('Concat', x, { axis: { int: 1 } }),
  );
  check(
    'Concat',
    [
      [2, 3],
      [1, 3],
    ],
    (g, x) => g.op('Concat', x, { axis: { int: -2 } }),
  );
  check(
    'Split',
    [[2, 6]],
    (g, [x]) => g.ops('Split', [x!], 3, { axis: { int: 1 }, num_outputs: { int: 3 } })[1]!,
  );
  check('Where', [[2, 3], [3]], (g, [a, b]) => {
    const positive = g.op('Greater', [a!, g.scalar('float32', 0)]);
    return g.op('Where', [positive, a!, b!]);
  });
  check('Clip', [[3, 4]], (g, [x]) =>
    g.op('Clip', [x!, g.scalar('float32', -0.5), g.scalar('float32', 0.7)]),
  );
  check('Slice', [[4, 5]], (g, [x]) =>
    g.op('Slice', [
      x!,
      g.integers([3, 1]),
      g.integers([-9, 5]),
      g.integers([0, 1]),
      g.integers([-2, 2]),
    ]),
  );
  check('Pad', [[2, 3]], (g, [x]) => g.op('Pad', [x!, g.integers([1, 0, 2, 1])]));
  check('Tile', [[2, 3]], (g, [x]) => g.op('Tile', [x!, g.integers([2, 3])]));
  check('CumSum', [[2, 4]], (g, [x]) =>
    g.op('CumSum', [x!, g.scalar('int64', 1)], { exclusive: { int: 1 } }),
  );
  check('Trilu', [[3, 4]], (g, [x]) => g.op('Trilu', [x!], { upper: { int: 0 } }));
  check('SpaceToDepth', [[1, 2, 4, 2]], (g, [x]) =>
    g.op('SpaceToDepth', [x!], { blocksize: { int: 2 } }),
  );
  check('DepthToSpace', [[1, 8, 2, 1]], (g, [x]) =>
    g.op('DepthToSpace', [x!], { blocksize: { int: 2 } }),
  );
});

describe('indexing', () => {
  check('Gather', [[4, 3]], (g, [x]) =>
    g.op('Gather', [x!, g.constant('int64', [2, 2], [0, 3, 3, 1])]),
  );
  check('Gather', [[2, 4, 3]], (g, [x]) =>
    g.op('Gather', [x!, g.constant('int64', [3], [2, 2, -1])], { axis: { int: 1 } }),
  );
  check('Gather', [[2, 4]], (g, [x]) =>
    g.op('Gather', [x!, g.scalar('int64', 2)], { axis: { int: 1 } }),
  );
  check('GatherElements', [[2, 3]], (g, [x]) =>
    g.op('GatherElements', [x!, g.constant('int64', [2, 2], [0, 2, 1, 1])], { axis: { int: 1 } }),
  );
  check('GatherND', [[3, 4]], (g, [x]) =>
    g.op('GatherND', [x!, g.constant('int64', [3, 1], [2, 0, 2])]),
  );
  check(
    'ScatterElements',
    [
      [2, 3],
      [2, 2],
    ],
    (g, [x, u]) =>
      g.op('ScatterElements', [x!, g.constant('int64', [2, 2], [0, 2, 1, 0]), u!], {
        axis: { int: 1 },
      }),
  );
  check(
    'ScatterND',
    [
      [3, 2],
      [2, 2],
    ],
    (g, [x, u]) => g.op('ScatterND', [x!, g.constant('int64', [2, 1], [2, 0]), u!]),
  );
  check('TopK', [[2, 5]], (g, [x]) => g.ops('TopK', [x!, g.integers([2])], 2)[0]!);
});

describe('channels', () => {
  check('BatchNormalization', [[2, 3, 4], [3], [3]], (g: GraphBuilder, [x, s, b]) =>
    g.op('BatchNormalization', [
      x!,
      s!,
      b!,
      g.constant('float32', [3], [0.1, -0.2, 0.3]),
      g.constant('float32', [3], [1, 0.5, 2]),
    ]),
  );
  check('InstanceNormalization', [[2, 3, 5], [3], [3]], (g, x) => g.op('InstanceNormalization', x));
  check(
    'PRelu',
    [
      [2, 3, 2],
      [3, 1],
    ],
    (g, x) => g.op('PRelu', x),
  );
  check('LpNormalization', [[2, 4]], (g, [x]) => g.op('LpNormalization', [x!], { p: { int: 2 } }));
  check('LpNormalization', [[2, 4]], (g, [x]) => g.op('LpNormalization', [x!], { p: { int: 1 } }));
  check('GlobalAveragePool', [[2, 2, 3, 2]], (g, [x]) => g.op('GlobalAveragePool', [x!]));
  check('GlobalMaxPool', [[2, 2, 3]], (g, [x]) => g.op('GlobalMaxPool', [x!]));
  check('MaxPool', [[1, 2, 6, 5]], (g, [x]) =>
    g.op('MaxPool', [x!], {
      kernel_shape: ints(3, 2),
      strides: ints(2, 1),
      pads: ints(1, 0, 1, 1),
    }),
  );
});
