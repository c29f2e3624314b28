import { describe, expect, it } from 'vitest';
import { replaceBooleans } from '../../src/graph/booleans.js';
import { type Attributes, GraphBuilder } from '../../src/graph/builder.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { type OpenSessionOptions, openSession } from '../../src/runtime/session.js';
import type { TensorValue } from '../../src/runtime/tensor-value.js';
import { describeOnWebGpu } from '../support/vulkan.js';

const int = (value: number) => ({ int: value });
const mask = (...bits: number[]): TensorValue => ({
  dtype: 'bool',
  dims: [2, 3],
  data: Uint8Array.from(bits),
});
const feeds = new Map([
  ['a', mask(1, 0, 1, 0, 0, 1)],
  ['b', mask(1, 1, 0, 0, 1, 0)],
]);

type Build = (graph: GraphBuilder) => readonly string[];
const single =
  (opType: string, inputs: (g: GraphBuilder) => string[], attributes: Attributes = {}): Build =>
  (graph) => [graph.op(opType, inputs(graph), attributes)];

const operators: Readonly<Record<string, Build>> = {
  Concat: single('Concat', () => ['a', 'b'], { axis: int(1) }),
  Equal: single('Equal', () => ['a', 'b']),
  GatherElements: single('GatherElements', (g) => ['a', g.constant('int64', [1, 3], [1, 0, 1])]),
  GatherND: single('GatherND', (g) => ['a', g.constant('int64', [2, 2], [0, 2, 1, 0])]),
  Identity: single('Identity', () => ['a']),
  Or: single('Or', () => ['a', 'b']),
  Pad: single('Pad', (g) => ['a', g.integers([0, 1, 0, 0]), g.scalar('bool', 1)]),
  ScatterElements: single('ScatterElements', (g) => {
    const ones = g.constant('bool', [1, 3], [1, 1, 1]);
    return ['a', g.constant('int64', [1, 3], [1, 0, 1]), ones];
  }),
  Slice: single('Slice', (g) => ['a', g.integers([1]), g.integers([3]), g.integers([1])]),
  Split: (g) => g.ops('Split', ['a', g.integers([1, 2])], 2, { axis: int(1) }),
  Tile: single('Tile', (g) => ['a', g.integers([2, 1])]),
  Trilu: single('Trilu', () => ['a']),
  Transpose: single('Transpose', () => ['a'], { perm: { ints: [1, 0] } }),
};

function graphOf(build: Build): GraphBuilder {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  for (const name of ['a', 'b']) {
    graph.reserve(name);
    graph.inputs.push({ name, dtype: 'bool', shape: [2, 3] });
  }
  for (const name of build(graph)) graph.outputs.push({ name, dtype: undefined, shape: null });
  return graph;
}

async function replaced(build: Build): Promise<GraphBuilder> {
  const graph = graphOf(build);
  replaceBooleans(graph, await inferTypes(graph));
  return graph;
}

async function outputsOf(graph: GraphBuilder, options: OpenSessionOptions = {}) {
  const session = await openSession(await collect(graph.modelPieces()), options);
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

describe('operators on booleans', () => {
  it.each(Object.keys(operators))('%s gives the same by numbers', async (name) => {
    const build = operators[name]!;
    expect(await outputsOf(await replaced(build))).toEqual(await outputsOf(graphOf(build)));
  });

  it('are left alone on other types', async () => {
    const graph = graphOf((g) => {
      const floats = g.op('Cast', ['a'], { to: int(1) });
      return [g.op('Transpose', [floats], { perm: { ints: [1, 0] } })];
    });
    const before = [...graph.nodes];
    replaceBooleans(graph, await inferTypes(graph));
    expect(graph.nodes).toEqual(before);
  });
});

describeOnWebGpu('operators on booleans on WebGPU', () => {
  it.each(Object.keys(operators))('%s has no need of the CPU', async (name) => {
    const graph = await replaced(operators[name]!);
    const found = await outputsOf(graph, { provider: 'webgpu', cpuFallback: false });
    expect(found).toEqual(await outputsOf(graphOf(operators[name]!)));
  });
});
