/** Sizes of 0 that only the data have: experts without a token, caches that hold nothing yet. */
import { describe, expect, it } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import { tensorFromNumbers } from '../../src/runtime/tensor-value.js';

interface Case {
  /** The rank of x, all of whose sizes are symbols but those that are given here. */
  readonly shape: readonly (string | number)[];
  readonly sizes: readonly number[];
  readonly build: (graph: GraphBuilder, x: string) => string;
}

const ints = (...values: number[]) => ({ ints: values });

const cases: Readonly<Record<string, Case>> = {
  'a Reshape that takes an inner size of 0 along': {
    shape: ['batch', 'rows', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => {
      const shape = graph.op('Gather', [graph.op('Shape', [x]), graph.integers([1, 0, 2])]);
      return graph.op('Reshape', [x, shape], { allowzero: { int: 1 } });
    },
  },
  'a Reshape to one row': {
    shape: ['batch', 'rows', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => graph.op('Reshape', [x, graph.integers([-1])]),
  },
  'a product with a bias that stretches': {
    shape: ['batch', 'rows', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => {
      const w = graph.constant('float32', [4, 3], Array<number>(12).fill(0.5));
      return graph.op('Add', [graph.op('MatMul', [x, w]), graph.op('ReduceSum', [x])]);
    },
  },
  'rows of no index': {
    shape: ['rows', 4],
    sizes: [3, 4],
    build: (graph, x) => {
      const none = graph.op('NonZero', [
        graph.op('Greater', [graph.op('Abs', [x]), graph.scalar('float32', 99)]),
      ]);
      const first = graph.op('Squeeze', [
        graph.op('Slice', [none, graph.integers([0]), graph.integers([1])]),
        graph.integers([0]),
      ]);
      return graph.op('Gather', [x, first]);
    },
  },
  'a cache in front that holds nothing': {
    shape: ['batch', 'past', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => {
      const now = graph.constant('float32', [2, 3, 4], Array<number>(24).fill(1));
      return graph.op('Concat', [x, now], { axis: { int: 1 } });
    },
  },
  'copies by Tile': {
    shape: ['batch', 'rows', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => graph.op('Tile', [x, graph.integers([1, 2, 1])]),
  },
  'a LayerNormalization': {
    shape: ['batch', 'rows', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => {
      const ones = graph.constant('float32', [4], [1, 1, 1, 1]);
      return graph.op('LayerNormalization', [x, ones]);
    },
  },
  'a batch of no image by DepthToSpace': {
    shape: ['batch', 8, 'height', 'width'],
    sizes: [0, 8, 2, 3],
    build: (graph, x) =>
      graph.op('DepthToSpace', [x], { blocksize: { int: 2 }, mode: { text: 'CRD' } }),
  },
  'a mean over nothing': {
    shape: ['batch', 'rows', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => graph.op('ReduceMean', [x], { axes: ints(1) }),
  },
  heads: {
    shape: ['batch', 'rows', 4],
    sizes: [2, 0, 4],
    build: (graph, x) => {
      graph.importDomain('com.microsoft', 1);
      const name = graph.fresh('attention');
      const attributes = { num_heads: { int: 2 } };
      graph.add({
        ...{ name, opType: 'MultiHeadAttention', domain: 'com.microsoft', attributes },
        ...{ inputs: [x, x, x], outputs: [name] },
      });
      return name;
    },
  },
};

describe('the gradient', () => {
  it.each(Object.keys(cases))('of %s is there', async (name) => {
    const { shape, sizes, build } = cases[name]!;
    const graph = new GraphBuilder([{ domain: '', version: 17 }]);
    graph.reserve('x');
    graph.inputs.push({ name: 'x', dtype: 'float32', shape });
    const y = build(graph, 'x');
    const loss = graph.op('ReduceSum', [graph.op('Mul', [y, y])], { keepdims: { int: 0 } });
    const types = await inferTypes(graph);
    const gradient = differentiate(graph, types, loss, ['x']).get('x')!;
    graph.outputs.push({ name: gradient, dtype: undefined, shape: null });
    const session = await openSession(await collect(graph.modelPieces()));
    const count = sizes.reduce((a, b) => a * b, 1);
    const x = tensorFromNumbers('float32', sizes, new Float64Array(count).fill(1));
    try {
      const found = (await session.run(new Map([['x', x]]))).get(gradient)!;
      expect(found.dims).toEqual(sizes);
      expect([...found.data].every((value) => Number.isFinite(value))).toBe(true);
    } finally {
      await session.release();
    }
  });
});
