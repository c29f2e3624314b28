/** The families of operators over random ranks, sizes, broadcasts, axes, attributes and opsets. */
import fc from 'fast-check';
import { test } from 'vitest';
import type { Attributes, GraphBuilder } from '../../src/graph/builder.js';
import { type Build, type Case, checkGradients } from './check.js';

const RUNS = { seed: 20, numRuns: 30 };

const size = fc.integer({ min: 1, max: 3 });
const shape = (minRank: number) => fc.array(size, { minLength: minRank, maxLength: 4 });
const opset = fc.constantFrom(13, 14, 16, 17, 18, 20, 21);
const symbols = fc.constantFrom('none', 'all');

/** Checks an arbitrary case. */
function property<T>(name: string, arbitrary: fc.Arbitrary<T>, toCase: (value: T) => Case): void {
  test(name, async () => {
    await fc.assert(
      fc.asyncProperty(arbitrary, fc.integer({ min: 1, max: 1000 }), async (value, seed) => {
        await checkGradients({ ...toCase(value), seed });
      }),
      RUNS,
    );
  });
}

/** The shape, or one that broadcasts to it: some sizes 1, some axes in front left out. */
function broadcastable(full: readonly number[]): fc.Arbitrary<number[]> {
  const axes = full.map((n) => fc.constantFrom(n, 1));
  return fc
    .tuple(fc.tuple(...axes), fc.integer({ min: 0, max: full.length }))
    .map(([sizes, from]) => sizes.slice(from));
}

property(
  'two operands broadcast',
  shape(0).chain((full) =>
    fc.record({
      name: fc.constantFrom('Add', 'Sub', 'Mul', 'Div', 'Pow', 'Min', 'Max', 'Where'),
      shapes: fc.tuple(broadcastable(full), broadcastable(full)),
      opset,
      symbols,
    }),
  ),
  ({ name, shapes, ...rest }) => ({
    ...rest,
    shapes,
    domain: (z) => Math.abs(z) + 0.3,
    build: (g, [a, b]) =>
      name === 'Where'
        ? g.op('Where', [g.op('Greater', [b!, g.scalar('float64', 1)]), a!, b!])
        : g.op(name, [a!, b!]),
  }),
);

property(
  'products of matrices broadcast',
  fc
    .record({ batch: fc.array(size, { maxLength: 2 }), m: size, k: size, n: size, opset, symbols })
    .chain((one) =>
      fc.record({
        one: fc.constant(one),
        left: broadcastable(one.batch),
        right: broadcastable(one.batch),
      }),
    ),
  ({ one: { m, k, n, opset: version, symbols: kind }, left, right }) => ({
    opset: version,
    symbols: kind,
    shapes: [
      [...left, m, k],
      [...right, k, n],
    ],
    build: (g, x) => g.op('MatMul', x),
  }),
);

const reductions = ['L1', 'L2', 'LogSumExp', 'Max', 'Mean', 'Min', 'Prod', 'Sum', 'SumSquare'];

property(
  'reductions over any axes',
  shape(1).chain((full) =>
    fc.record({
      full: fc.constant(full),
      name: fc.constantFrom(...reductions.map((name) => `Reduce${name}`)),
      axes: fc.uniqueArray(fc.integer({ min: -full.length, max: full.length - 1 }), {
        selector: (axis) => (axis + full.length) % full.length,
        minLength: 1,
      }),
      keepdims: fc.constantFrom(0, 1),
      opset,
      symbols,
    }),
  ),
  ({ full, name, axes, keepdims, ...rest }) => ({
    ...rest,
    shapes: [full],
    build: reduce(name, axes, keepdims, rest.opset),
  }),
);

/** Axes were an attribute before opset 18, of ReduceSum before 13. */
function reduce(name: string, axes: readonly number[], keep: number, version: number): Build {
  const attributes: Attributes = { keepdims: { int: keep } };
  if (version >= 18 || name === 'ReduceSum') {
    return (g, [x]) => g.op(name, [x!, g.integers(axes)], attributes);
  }
  return (g, [x]) => g.op(name, [x!], { ...attributes, axes: { ints: axes } });
}

property(
  'softmax over any axis',
  shape(1).chain((full) =>
    fc.record({
      full: fc.constant(full),
      name: fc.constantFrom('Softmax', 'LogSoftmax'),
      axis: fc.integer({ min: -full.length, max: full.length - 1 }),
      opset: fc.constantFrom(11, 12, 13, 17, 20),
    }),
  ),
  ({ full, name, axis, opset: version }) => ({
    opset: version,
    shapes: [full],
    build: (g, [x]) => g.op(name, [x!], { axis: { int: axis } }),
  }),
);

property(
  'slices with any bounds and steps',
  shape(1).chain((full) =>
    fc.record({
      full: fc.constant(full),
      axis: fc.integer({ min: -full.length, max: full.length - 1 }),
      start: fc.integer({ min: -5, max: 5 }),
      end: fc.constantFrom(-5, -2, -1, 0, 1, 2, 3, Number.MAX_SAFE_INTEGER),
      step: fc.constantFrom(-2, -1, 1, 1, 1, 2),
      opset: fc.constantFrom(16, 17, 18, 21),
      symbols,
    }),
  ),
  ({ full, axis, start, end, step, ...rest }) => ({
    ...rest,
    shapes: [full],
    build: (g, [x]) => {
      const bounds = [[start], [end], [axis], [step]].map((list) => g.integers(list));
      // An empty slice has no sum to differentiate: beside all of x it has.
      const part = g.op('Slice', [x!, ...bounds]);
      return g.op('Concat', [part, x!], { axis: { int: axis } });
    },
  }),
);

property(
  'layouts one behind the other',
  fc.record({
    full: fc.tuple(size, size, size),
    steps: fc.array(fc.constantFrom(...Object.keys(layouts())), { minLength: 1, maxLength: 4 }),
    // Gather's gradient needs ScatterND with addition.
    opset: fc.constantFrom(16, 17, 18, 20, 21),
    symbols,
  }),
  ({ full, steps, ...rest }) => ({
    ...rest,
    shapes: [full],
    build: (g, [x]) => steps.reduce((value, step) => layouts()[step]!(g, value), x!),
  }),
);

/** From a value of rank 3 to another. */
function layouts(): Record<string, (g: GraphBuilder, x: string) => string> {
  return {
    transpose: (g, x) => g.op('Transpose', [x], { perm: { ints: [2, 0, 1] } }),
    reshape: (g, x) => g.op('Reshape', [x, g.integers([1, -1, 1])]),
    expand: (g, x) => {
      const wide = g.op('Expand', [
        g.op('Unsqueeze', [x, g.integers([1])]),
        g.integers([1, 2, 1, 1]),
      ]);
      return g.op('Reshape', [wide, g.integers([0, 0, -1])]);
    },
    flatten: (g, x) =>
      g.op('Unsqueeze', [g.op('Flatten', [x], { axis: { int: 2 } }), g.integers([0])]),
    gather: (g, x) => g.op('Gather', [x, g.constant('int64', [2], [0, -1])], { axis: { int: 1 } }),
    tile: (g, x) => g.op('Tile', [x, g.integers([1, 2, 1])]),
    concat: (g, x) => g.op('Concat', [x, x], { axis: { int: -1 } }),
    pad: (g, x) => g.op('Pad', [x, g.integers([0, 1, 0, 1, 0, 0])]),
  };
}
