import { describe, expect, test } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import { gelu } from './erf.js';
import { constant, float, gradients, int, ints, operator, scalar } from './operators.js';

/** (x - mean) / √(variance + ε) over axes, or x / √(mean of squares + ε). */
function normalized(
  g: GraphBuilder,
  x: string,
  axes: readonly number[],
  epsilon: number,
  centered = true,
): string {
  const over = { axes: { ints: axes } };
  const values = centered ? g.op('Sub', [x, g.op('ReduceMean', [x], over)]) : x;
  const variance = g.op('ReduceMean', [g.op('Mul', [values, values])], over);
  return g.op('Div', [values, g.op('Sqrt', [g.op('Add', [variance, scalar(g, epsilon)])])]);
}

function affine(g: GraphBuilder, value: string, scale: string, shift?: string): string {
  const scaled = g.op('Mul', [value, scale]);
  return shift ? g.op('Add', [scaled, shift]) : scaled;
}

describe('softmax', () => {
  for (const name of ['Softmax', 'LogSoftmax']) {
    operator(name, [[2, 3, 2]]);
    operator(name, [[2, 3, 2]], { attributes: { axis: int(1) } });
    operator(name, [[2, 3, 2]], { attributes: { axis: int(0) } });
    // Before opset 13 it goes over all axes from this one on.
    operator(name, [[2, 3, 2]], { attributes: { axis: int(1) }, opset: 11, symbols: 'none' });
    operator(name, [[2, 3, 2]], { attributes: { axis: int(-1) }, opset: 11, symbols: 'none' });
  }
});

describe('LayerNormalization', () => {
  operator('LayerNormalization', [[2, 3, 4], [4], [4]]);
  operator('LayerNormalization', [[2, 3, 4], [4]], { attributes: { epsilon: float(0.1) } });
  operator(
    'LayerNormalization',
    [
      [2, 3, 4],
      [3, 4],
      [3, 4],
    ],
    { attributes: { axis: int(1) } },
  );
  for (const axis of [1, -1]) {
    const axes = axis === 1 ? [1, 2] : [2];
    const sizes = axis === 1 ? [3, 4] : [4];
    operator('LayerNormalization', [[2, 3, 4], sizes, sizes], {
      dtype: 'float32',
      attributes: { axis: int(axis), epsilon: float(0.01) },
      reference: (g, [x, s, b]) => affine(g, normalized(g, x!, axes, Math.fround(0.01)), s!, b),
    });
  }
});

describe('root mean square', () => {
  const options = {
    dtype: 'float32',
    attributes: { axis: int(-1), epsilon: float(1e-5) },
    reference: (g: GraphBuilder, [x, s]: readonly string[]) =>
      affine(g, normalized(g, x!, [2], 1e-5, false), s!),
  } as const;
  operator('SimplifiedLayerNormalization', [[2, 3, 4], [4]], options);
  const overInput = (g: GraphBuilder, [x, s]: readonly string[]) => {
    const squares = g.op('ReduceMean', [g.op('Mul', [x!, x!]), g.integers([2])]);
    const root = g.op('Sqrt', [g.op('Add', [squares, scalar(g, 1e-5)])]);
    return affine(g, g.op('Div', [x!, root]), s!);
  };
  operator('RMSNormalization', [[2, 3, 4], [4]], { ...options, opset: 23, reference: overInput });
});

describe('com.microsoft skip normalizations', () => {
  const attributes = { epsilon: float(1e-5) };
  const sumOf = (g: GraphBuilder, terms: readonly (string | undefined)[]) =>
    terms.filter((term) => term !== undefined).reduce((a, b) => g.op('Add', [a, b]));
  for (const shapes of [
    [[2, 3, 4], [2, 3, 4], [4], [4]],
    [[2, 3, 4], [2, 3, 4], [4], [4], [4]],
    [[2, 3, 4], [3, 4], [4], [4]],
  ]) {
    operator('com.microsoft:SkipLayerNormalization', shapes, {
      dtype: 'float32',
      attributes,
      reference: (g, [x, skip, s, b, bias]) =>
        affine(g, normalized(g, sumOf(g, [x, skip, bias]), [-1], 1e-5), s!, b),
    });
  }
  for (const shapes of [
    [[2, 3, 4], [2, 3, 4], [4]],
    [[2, 3, 4], [2, 3, 4], [4], [4]],
  ]) {
    operator('com.microsoft:SkipSimplifiedLayerNormalization', shapes, {
      dtype: 'float32',
      attributes,
      reference: (g, [x, skip, s, bias]) =>
        affine(g, normalized(g, sumOf(g, [x, skip, bias]), [-1], 1e-5, false), s!),
    });
  }
  gradients(
    'SkipLayerNormalization whose sum is used too',
    (g, inputs) => {
      const outputs = ['normalized', '', '', 'sum'];
      const domain = 'com.microsoft';
      g.add({
        name: 'skip',
        opType: 'SkipLayerNormalization',
        domain,
        inputs,
        outputs,
        attributes,
      });
      return g.op('Mul', ['normalized', 'sum']);
    },
    [[2, 4], [2, 4], [4], [4]].map((shape) => (shape.length === 2 ? [1, ...shape] : shape)),
    {
      dtype: 'float32',
      reference: (g, [x, skip, s, b]) => {
        const sum = g.op('Add', [x!, skip!]);
        return g.op('Mul', [affine(g, normalized(g, sum, [-1], 1e-5), s!, b), sum]);
      },
    },
  );
});

describe('com.microsoft activations with a bias', () => {
  const tanhGelu = (g: GraphBuilder, x: string) => {
    const cube = g.op('Mul', [g.op('Mul', [x, x]), x]);
    const inner = g.op('Add', [x, g.op('Mul', [cube, scalar(g, 0.044715)])]);
    const t = g.op('Tanh', [g.op('Mul', [inner, scalar(g, Math.sqrt(2 / Math.PI))])]);
    const half = g.op('Mul', [x, scalar(g, 0.5)]);
    return g.op('Mul', [half, g.op('Add', [t, scalar(g, 1)])]);
  };
  operator('com.microsoft:FastGelu', [[2, 5], [5]], {
    dtype: 'float32',
    reference: (g, [x, bias]) => tanhGelu(g, g.op('Add', [x!, bias!])),
  });
  operator('com.microsoft:BiasGelu', [[1, 5], [5]], {
    dtype: 'float32',
    scalar: (x, bias) => gelu(x! + bias!),
  });
});

describe('channels', () => {
  const moments = (g: GraphBuilder) => [
    constant(g, [3], [0.1, -0.2, 0.3]),
    constant(g, [3], [1, 0.5, 2]),
  ];
  gradients(
    'BatchNormalization',
    (g, x) => g.op('BatchNormalization', [...x, ...moments(g)], { epsilon: float(0.1) }),
    [[2, 3, 4], [3], [3]],
  );
  gradients(
    'BatchNormalization over images',
    (g, x) => g.op('BatchNormalization', [...x, ...moments(g)]),
    [[2, 3, 2, 2], [3], [3]],
  );
  const column = (g: GraphBuilder, value: string) => g.op('Reshape', [value, g.integers([-1, 1])]);
  operator('InstanceNormalization', [[2, 3, 5], [3], [3]], {
    dtype: 'float32',
    attributes: { epsilon: float(1e-3) },
    reference: (g, [x, s, b]) =>
      affine(g, normalized(g, x!, [2], Math.fround(1e-3)), column(g, s!), column(g, b!)),
  });
  for (const opset of [18, 21]) {
    const sizes = opset === 18 ? [2] : [4];
    const wide = (g: GraphBuilder, value: string) => {
      const each = opset === 18 ? g.op('Expand', [column(g, value), g.integers([2, 2])]) : value;
      return g.op('Reshape', [each, g.integers([1, 4, 1])]);
    };
    operator('GroupNormalization', [[2, 4, 3], sizes, sizes], {
      dtype: 'float32',
      opset,
      symbols: opset === 18 ? 'none' : 'all',
      attributes: { num_groups: int(2), epsilon: float(1e-3) },
      reference: (g, [x, s, b]) => {
        const groups = g.op('Reshape', [x!, g.integers([2, 2, -1])]);
        const mean = (value: string) => g.op('ReduceMean', [value, g.integers([2])]);
        const centered = g.op('Sub', [groups, mean(groups)]);
        const variance = mean(g.op('Mul', [centered, centered]));
        const root = g.op('Sqrt', [g.op('Add', [variance, scalar(g, Math.fround(1e-3))])]);
        const n = g.op('Reshape', [g.op('Div', [centered, root]), g.integers([2, 4, 3])]);
        return affine(g, n, wide(g, s!), wide(g, b!));
      },
    });
  }
  for (const p of [1, 2]) {
    operator('LpNormalization', [[2, 4]], { attributes: { p: int(p) } });
    operator('LpNormalization', [[2, 3, 2]], { attributes: { p: int(p), axis: int(1) } });
  }
});

describe('further inputs and outputs', () => {
  const opset17 = { opset: 17, domain: (z: number) => Math.abs(z) + 0.5 };
  operator('BatchNormalization', [[2, 3, 4], [3], [3], [3], [3]], opset17);
  for (const output of [1, 2]) {
    gradients(
      `LayerNormalization, its output ${output} beside the first`,
      (g, [x, scale, bias]) => {
        const made = g.ops('LayerNormalization', [x!, scale!, bias!], 3, { axis: int(-2) });
        return g.op('Mul', [made[0]!, made[output]!]);
      },
      [
        [2, 3, 4],
        [3, 4],
        [3, 4],
      ],
      {
        dtype: 'float32',
        reference: (g, [x, scale, bias]) => {
          const over = { axes: ints(1, 2) };
          const mean = g.op('ReduceMean', [x!], over);
          const centered = g.op('Sub', [x!, mean]);
          const variance = g.op('ReduceMean', [g.op('Mul', [centered, centered])], over);
          const shifted = g.op('Add', [variance, g.scalar('float64', Math.fround(1e-5))]);
          const inverse = g.op('Reciprocal', [g.op('Sqrt', [shifted])]);
          const scaled = g.op('Mul', [g.op('Mul', [centered, inverse]), scale!]);
          return g.op('Mul', [g.op('Add', [scaled, bias!]), output === 1 ? mean : inverse]);
        },
      },
    );
  }
});

test('a row that is all -∞, and that a mask leaves out behind the softmax, gives 0', async () => {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  graph.reserve('x');
  graph.inputs.push({ name: 'x', dtype: 'float32', shape: [2, 3] });
  const bias = graph.constant('float32', [2, 1], [0, Number.NEGATIVE_INFINITY]);
  const rows = graph.op('Softmax', [graph.op('Add', ['x', bias])], { axis: int(-1) });
  const isClosed = graph.constant('bool', [2, 1], [0, 1]);
  const kept = graph.op('Where', [isClosed, graph.scalar('float32', 0), rows]);
  const loss = graph.op('ReduceSumSquare', [kept], { keepdims: int(0) });
  const dx = differentiate(graph, await inferTypes(graph), loss, ['x']).get('x')!;
  graph.outputs.push({ name: dx, dtype: undefined, shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  const x = { dtype: 'float32', dims: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) } as const;
  const { data } = (await session.run(new Map([['x', x]]))).get(dx)!;
  await session.release();
  const gradient = [...(data as Float32Array)];
  expect(gradient.slice(0, 3).every((value) => value !== 0 && Number.isFinite(value))).toBe(true);
  expect(gradient.slice(3)).toEqual([0, 0, 0]);
});
