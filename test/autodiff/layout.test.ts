import { describe, expect, test } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import { add, gradients, int, ints, operator, scalar, text } from './operators.js';

const opset18 = { opset: 18 };

describe('shapes', () => {
  operator('Transpose', [[2, 3, 4]], { attributes: { perm: ints(2, 0, 1) } });
  operator('Transpose', [[2, 3, 4]]);
  gradients('Reshape', (g, [x]) => g.op('Reshape', [x!, g.integers([3, -1])]), [[2, 6]]);
  operator('Flatten', [[2, 3, 2]]);
  gradients('Unsqueeze', (g, [x]) => g.op('Unsqueeze', [x!, g.integers([1, -1])]), [[2, 3]]);
  gradients('Squeeze', (g, [x]) => g.op('Squeeze', [x!, g.integers([1])]), [[2, 1, 3]], {
    symbols: 'none',
  });
  operator('Squeeze', [[2, 1, 3]], { opset: 11, attributes: { axes: ints(1) }, symbols: 'none' });
  operator('Unsqueeze', [[2, 3]], { opset: 11, attributes: { axes: ints(0, 3) } });
  gradients('Expand', (g, [x]) => g.op('Expand', [x!, g.integers([2, 4, 3])]), [[2, 1, 3]]);
  gradients('Expand to more axes', (g, [x]) => g.op('Expand', [x!, g.integers([2, 3, 1])]), [
    [3, 1],
  ]);
  gradients('Tile', (g, [x]) => g.op('Tile', [x!, g.integers([2, 3])]), [[2, 3]]);
});

describe('parts', () => {
  operator(
    'Concat',
    [
      [2, 3],
      [2, 2],
      [2, 1],
    ],
    { attributes: { axis: int(1) } },
  );
  operator(
    'Concat',
    [
      [2, 3],
      [1, 3],
    ],
    { attributes: { axis: int(-2) } },
  );
  gradients(
    'Split in equal parts, of which one is used',
    (g, [x]) => g.ops('Split', [x!], 3, { axis: int(1), num_outputs: int(3) })[1]!,
    [[2, 6]],
    opset18,
  );
  gradients(
    'Split in parts of given sizes',
    (g, [x]) => {
      const [a, b] = g.ops('Split', [x!, g.integers([1, 3])], 2, { axis: int(-1) });
      return g.op('Mul', [a!, b!]);
    },
    [[2, 4]],
  );
  gradients(
    'Split with a smaller last part',
    (g, [x]) => g.ops('Split', [x!], 2, { axis: int(1), num_outputs: int(2) })[1]!,
    [[2, 5]],
    opset18,
  );
});

describe('Slice', () => {
  const MAX = Number.MAX_SAFE_INTEGER;
  const slice = (name: string, shape: number[], ...bounds: number[][]) =>
    gradients(
      `Slice ${name}`,
      (g, [x]) => g.op('Slice', [x!, ...bounds.map((list) => g.integers(list))]),
      [shape],
    );
  slice('of the last axis', [2, 3, 4], [0], [2], [-1]);
  slice('to the end', [2, 5], [2], [MAX], [1]);
  slice('counted from the end', [2, 5], [-3], [-1], [1]);
  slice('beyond both ends', [4, 3], [-9], [9], [0]);
  slice('of two axes', [4, 5], [1, 2], [3, 5], [0, 1]);
  slice('without axes', [4, 5], [1, 2], [3, 5]);
  slice('in steps', [4, 5], [0], [MAX], [1], [2]);
  slice('backwards', [4, 5], [MAX], [-MAX], [0], [-1]);
  slice('backwards in steps', [4, 5], [3, 1], [-9, 5], [0, 1], [-2, 2]);
});

describe('Pad', () => {
  const pad = (name: string, shape: number[], pads: number[], mode = 'constant') =>
    gradients(
      `Pad ${name}`,
      (g, [x]) => g.op('Pad', [x!, g.integers(pads)], { mode: text(mode) }),
      [shape],
      opset18,
    );
  pad('with zeros', [2, 3], [1, 0, 2, 1]);
  pad('by less than nothing', [4, 3], [-1, 1, 0, -1]);
  pad('with edges', [2, 3], [1, 2, 0, 1], 'edge');
  pad('with reflections', [3, 4], [1, 2, 0, 3], 'reflect');
  gradients(
    'Pad of some axes',
    (g, [x]) => g.op('Pad', [x!, g.integers([1, 2]), '', g.integers([-1])]),
    [[2, 3]],
    opset18,
  );
  gradients(
    'Pad with a computed number',
    (g, [x, value]) => g.op('Pad', [x!, g.integers([1, 0, 0, 2]), value!]),
    [[2, 3], []],
    opset18,
  );
});

describe('rearrangements', () => {
  for (const exclusive of [0, 1]) {
    for (const reverse of [0, 1]) {
      gradients(
        `CumSum exclusive ${exclusive} reverse ${reverse}`,
        (g, [x]) =>
          g.op('CumSum', [x!, g.scalar('int64', 1)], {
            exclusive: int(exclusive),
            reverse: int(reverse),
          }),
        [[2, 4]],
      );
    }
  }
  operator('Trilu', [[3, 4]], { attributes: { upper: int(0) } });
  gradients('Trilu above a diagonal', (g, [x]) => g.op('Trilu', [x!, g.scalar('int64', 1)]), [
    [2, 3, 4],
  ]);
  operator('SpaceToDepth', [[1, 2, 4, 2]], { attributes: { blocksize: int(2) } });
  operator('DepthToSpace', [[1, 8, 2, 1]], { attributes: { blocksize: int(2) } });
  operator('DepthToSpace', [[1, 8, 2, 3]], {
    attributes: { blocksize: int(2), mode: text('CRD') },
    symbols: 'none',
  });
  gradients(
    'ReverseSequence',
    (g, [x]) => g.op('ReverseSequence', [x!, g.constant('int64', [2], [2, 3])]),
    [[3, 2]],
  );
});

describe('Dropout', () => {
  operator('Dropout', [[2, 3]]);
  gradients(
    'Dropout that does not train',
    (g, [x]) => g.op('Dropout', [x!, g.scalar('float32', 0.5), g.constant('bool', [], [0])]),
    [[2, 3]],
  );

  test('in training it passes what was kept, as much greater as the output is', async () => {
    const graph = new GraphBuilder([{ domain: '', version: 17 }]);
    graph.inputs.push({ name: 'x', dtype: 'float32', shape: [64] });
    const ratio = graph.scalar('float32', 0.25);
    const dropped = graph.op('Dropout', ['x', ratio, graph.constant('bool', [], [1])]);
    const loss = graph.op('ReduceSum', [dropped], { keepdims: int(0) });
    const dx = differentiate(graph, await inferTypes(graph), loss, ['x']).get('x')!;
    for (const name of [dropped, dx]) {
      graph.outputs.push({ name, dtype: 'float32', shape: null });
    }
    const session = await openSession(await collect(graph.modelPieces()));
    const ones = { dtype: 'float32', dims: [64], data: new Float32Array(64).fill(1) } as const;
    const results = await session.run(new Map([['x', ones]]));
    await session.release();
    // Of ones, the output is the derivative itself.
    expect(results.get(dx)!.data).toEqual(results.get(dropped)!.data);
    expect(new Set(results.get(dx)!.data as Float32Array).size).toBe(2);
  });
});

describe('types', () => {
  gradients('Identity', (g, [x]) => add(g, 'Identity', [g.op('Mul', [x!, scalar(g, 2)])]), [
    [2, 3],
  ]);
});
