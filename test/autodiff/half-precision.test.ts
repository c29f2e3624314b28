/** Half precision: gradients are those of the same graph in float32, but for its roundings. */
import { describe, expect, test } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { dataTypeNumber } from '../../src/onnx/dtype.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import { randomNumbers } from '../support/adapters.js';
import { float, int, ints } from './operators.js';

type Kind = 'float32' | 'float16';

/** Builds operators behind `x` [2, 3, 4, 4], which is in that type. */
type Build = (graph: GraphBuilder, x: string, kind: Kind) => string;

const SHAPE = [2, 3, 4, 4];
const SIZE = 96;

/** The gradient of Σ w·f(x·M) by x, where f is in half precision and the product is not. */
async function gradientOf(build: Build, kind: Kind, factor = 1): Promise<Float32Array> {
  const graph = new GraphBuilder([{ domain: '', version: 18 }]);
  for (const name of ['x', 'm']) graph.reserve(name);
  graph.inputs.push({ name: 'x', dtype: 'float32', shape: SHAPE });
  graph.inputs.push({ name: 'm', dtype: 'float32', shape: [4, 4] });
  const to = (value: string, dtype: Kind) =>
    graph.op('Cast', [value], { to: int(dataTypeNumber(dtype)) });
  const half = to(graph.op('MatMul', ['x', 'm']), kind);
  const wide = to(build(graph, half, kind), 'float32');
  const flat = graph.op('Reshape', [wide, graph.integers([-1])]);
  const wave = graph.op('Sin', [graph.op('Add', [flat, graph.scalar('float32', 0.5)])]);
  const scaled = graph.op('Mul', [wave, graph.scalar('float32', factor)]);
  const loss = graph.op('ReduceSum', [scaled], { keepdims: int(0) }, 'loss');
  const gradient = differentiate(graph, await inferTypes(graph), loss, ['x']).get('x')!;
  graph.outputs.push({ name: gradient, dtype: 'float32', shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    const tensor = (dims: number[], seed: number, count: number) =>
      ({ dtype: 'float32', dims, data: Float32Array.from(randomNumbers(seed, count)) }) as const;
    const feeds = new Map([
      ['x', tensor(SHAPE, 1, SIZE)],
      ['m', tensor([4, 4], 2, 16)],
    ]);
    return (await session.run(feeds)).get(gradient)!.data as Float32Array;
  } finally {
    await session.release();
  }
}

const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));

async function difference(build: Build, factor?: number): Promise<number> {
  const expected = await gradientOf(build, 'float32', factor);
  const found = await gradientOf(build, 'float16', factor);
  expect(norm(expected)).toBeGreaterThan(0);
  return norm(found.map((value, i) => value - expected[i]!)) / norm(expected);
}

const bound = (graph: GraphBuilder, kind: Kind, value: number) => graph.scalar(kind, value);
const lastAxis = (graph: GraphBuilder) => graph.integers([-1]);

describe('operators that compare their output with what they read', () => {
  test.each<[string, Build]>([
    ['Clip', (g, x, kind) => g.op('Clip', [x, bound(g, kind, -0.3), bound(g, kind, 0.3)])],
    ['Max with a number', (g, x, kind) => g.op('Max', [x, bound(g, kind, 0.1)])],
    ['Min with a number', (g, x, kind) => g.op('Min', [x, bound(g, kind, 0.1)])],
    ['Max of two values', (g, x) => g.op('Max', [x, g.op('Neg', [x])])],
    ['ReduceMax', (g, x) => g.op('ReduceMax', [x, lastAxis(g)])],
    ['ReduceMin', (g, x) => g.op('ReduceMin', [x, lastAxis(g)], { keepdims: int(0) })],
    ['ReduceProd', (g, x) => g.op('ReduceProd', [x, lastAxis(g)])],
    ['ReduceLogSumExp', (g, x) => g.op('ReduceLogSumExp', [x, lastAxis(g)])],
    ['GlobalMaxPool', (g, x) => g.op('GlobalMaxPool', [x])],
    ['MaxPool', (g, x) => g.op('MaxPool', [x], { kernel_shape: ints(2, 2) })],
    ['HardSigmoid', (g, x) => g.op('HardSigmoid', [x], { alpha: float(1.5) })],
    ['Relu', (g, x) => g.op('Relu', [x])],
    ['PRelu', (g, x, kind) => g.op('PRelu', [x, bound(g, kind, 0.25)])],
  ])('%s', async (_, build) => {
    expect(await difference(build)).toBeLessThan(2e-3);
  });
});

test('gradients below the smallest float16 number arrive', async () => {
  const layer: Build = (g, x) => g.op('Softmax', [g.op('Tanh', [x])], { axis: int(-1) });
  expect(await difference(layer, 1e-9)).toBeLessThan(2e-3);
});

test('gradients above the largest float16 number arrive', async () => {
  const layer: Build = (g, x) => g.op('Softmax', [g.op('Tanh', [x])], { axis: int(-1) });
  expect(await difference(layer, 1e9)).toBeLessThan(2e-3);
});

test('a constant exponent in half precision is still known', async () => {
  const cube: Build = (g, x, kind) => g.op('Pow', [x, bound(g, kind, 3)]);
  expect(await difference(cube)).toBeLessThan(2e-3);
});
