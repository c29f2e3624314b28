import { expect, test } from 'vitest';
import { bodyAttribute } from '../../src/graph/body.js';
import { type Attributes, GraphBuilder } from '../../src/graph/builder.js';
import { raiseOpset } from '../../src/graph/raise-opset.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';

const ints = (...values: number[]) => ({ ints: values });
const x = {
  dtype: 'float32',
  dims: [2, 3, 4],
  data: Float32Array.from({ length: 24 }, (_, i) => Math.sin(7 * i)),
} as const;

function oldGraph(opType: string, attributes: Attributes, shape: readonly number[], opset = 9) {
  const graph = new GraphBuilder([{ domain: '', version: opset }]);
  graph.reserve('x');
  graph.inputs.push({ name: 'x', dtype: 'float32', shape });
  const output = graph.op(opType, ['x'], attributes);
  graph.outputs.push({ name: output, dtype: undefined, shape: null });
  return graph;
}

async function outputOf(graph: GraphBuilder) {
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    return [...(await session.run(new Map([['x', x]]))).values()][0]!;
  } finally {
    await session.release();
  }
}

test.each<[string, Attributes]>([
  ['Clip', { min: { float: -0.5 }, max: { float: 0.25 } }],
  ['Clip', { max: { float: 0.25 } }],
  ['Dropout', { ratio: { float: 0.5 } }],
  ['LogSoftmax', {}],
  ['Pad', { pads: ints(0, 1, 0, 0, 0, 2), value: { float: 3 } }],
  ['ReduceSum', { axes: ints(1), keepdims: { int: 0 } }],
  ['ReduceSum', {}],
  ['Slice', { starts: ints(1, -3), ends: ints(3, 100), axes: ints(1, 2) }],
  ['Slice', { starts: ints(1), ends: ints(2) }],
  ['Hardmax', {}],
  ['Softmax', {}],
  ['Softmax', { axis: { int: 2 } }],
  ['Softmax', { axis: { int: -1 } }],
  ['Softmax', { axis: { int: 0 } }],
  ['Split', { axis: { int: 2 }, split: ints(4) }],
  ['Unsqueeze', { axes: ints(0, 2) }],
])('%s of opset 9 with %j computes the same', async (opType, attributes) => {
  const old = oldGraph(opType, attributes, x.dims);
  const raised = raiseOpset(old, await inferTypes(old));
  expect(raised.opset).toBe(17);
  expect(await outputOf(raised)).toEqual(await outputOf(old));
});

test('a softmax over the last axis stays one node', async () => {
  const old = oldGraph('Softmax', { axis: { int: 2 } }, [2, 3, 4]);
  expect(raiseOpset(old, await inferTypes(old)).nodes.map(({ opType }) => opType)).toEqual([
    'Softmax',
  ]);
});

test('a newer graph stays as it is', async () => {
  const graph = oldGraph('Relu', {}, [2], 18);
  expect(raiseOpset(graph, await inferTypes(graph))).toBe(graph);
});

/** An operator behind `x` [2, 3, 4] as [1, 2, 3, 4], with further inputs. */
function imageGraph(
  opType: string,
  opset: number,
  attributes: Attributes,
  more: (graph: GraphBuilder) => readonly string[] = () => [],
) {
  const graph = new GraphBuilder([{ domain: '', version: opset }]);
  graph.reserve('x');
  graph.inputs.push({ name: 'x', dtype: 'float32', shape: x.dims });
  const image = graph.op('Reshape', ['x', graph.integers([1, 2, 3, 4])]);
  const count = opType === 'TopK' ? 2 : 1;
  const [output] = graph.ops(opType, [image, ...more(graph)], count, attributes);
  graph.outputs.push({ name: output!, dtype: undefined, shape: null });
  return graph;
}

const scales =
  (...values: number[]) =>
  (g: GraphBuilder) => [g.constant('float32', [4], [1, 1, ...values])];
/** Scales that the graph computes. */
const computed =
  (...values: number[]) =>
  (g: GraphBuilder) => [
    g.op('Add', [
      ...scales(...values)(g),
      g.op('Mul', [g.op('ReduceMin', ['x'], { keepdims: { int: 0 } }), g.scalar('float32', 0)]),
    ]),
  ];
const indices = (g: GraphBuilder) => [
  g.constant('int64', [1, 1, 1, 2], [1, 0]),
  g.constant('float32', [1, 1, 1, 2], [7, 9]),
];
const boxes = (g: GraphBuilder) => [
  g.constant('float32', [1, 4], [0, 0, 2.5, 2]),
  g.constant('int64', [1], [0]),
];
const nearest = { mode: { text: 'nearest' } };
const linear = { mode: { text: 'linear' } };

test.each<[string, number, string, Attributes, ((g: GraphBuilder) => readonly string[])?]>([
  ['Upsample', 7, 'nearest', { ...nearest, scales: { floats: [1, 1, 2, 3] } }],
  ['Upsample', 9, 'nearest', nearest, scales(2, 1.5)],
  ['Upsample', 9, 'linear', linear, scales(2, 3)],
  ['Resize', 10, 'nearest, larger', nearest, scales(2, 1.7)],
  ['Resize', 10, 'nearest, smaller', nearest, scales(0.6, 0.7)],
  ['Resize', 10, 'nearest, larger and smaller', nearest, scales(0.6, 1.7)],
  ['Resize', 10, 'nearest, by computed scales', nearest, computed(0.6, 1.7)],
  ['Resize', 10, 'linear', linear, scales(0.6, 1.7)],
  ['Scatter', 10, 'along an axis', { axis: { int: 3 } }, indices],
  ['Scatter', 9, 'along another axis', { axis: { int: 1 } }, indices],
  ['TopK', 9, 'of the last axis', { k: { int: 2 } }],
  ['TopK', 7, 'of another axis', { k: { int: 2 }, axis: { int: 1 } }],
  ['RoiAlign', 10, 'of one box', { output_height: { int: 2 }, output_width: { int: 2 } }, boxes],
])('%s of opset %i, %s, computes the same', async (opType, opset, _, attributes, more) => {
  const old = imageGraph(opType, opset, attributes, more);
  const raised = raiseOpset(old, await inferTypes(old));
  expect(raised.opset).toBe(17);
  expect(await outputOf(raised)).toEqual(await outputOf(old));
});

test('names the node that has no newer form here', () => {
  const attributes = { spatial: { int: 0 } };
  const old = oldGraph('BatchNormalization', attributes, [2, 3], 8);
  expect(() => raiseOpset(old, new Map())).toThrow(
    /batchnormalization: .* old form of BatchNormalization to opset 17/,
  );
});

/** A loop of three rounds over `state`, which a body makes of the one before; its numbers last. */
function loopGraph(opset: number, build: (body: GraphBuilder, state: string) => string) {
  const graph = new GraphBuilder([{ domain: '', version: opset }]);
  graph.reserve('x');
  graph.inputs.push({ name: 'x', dtype: 'float32', shape: x.dims });
  const [rounds, condition] = [graph.scalar('int64', 3), graph.scalar('bool', 1)];
  const body = bodyAttribute(graph, 'body', (inner) => {
    for (const [name, dtype] of [
      ['round', 'int64'],
      ['go', 'bool'],
      ['state', 'float32'],
    ] as const) {
      inner.inputs.push({ name, dtype, shape: name === 'state' ? null : [] });
    }
    const goOn = inner.op('Identity', ['go']);
    const last = inner.op('Identity', [build(inner, 'state')]);
    inner.outputs.push({ name: goOn, dtype: 'bool', shape: [] });
    inner.outputs.push({ name: last, dtype: 'float32', shape: null });
  });
  const output = graph.op('Loop', [rounds, condition, 'x'], { body });
  graph.outputs.push({ name: output, dtype: undefined, shape: null });
  return graph;
}

const inLoops: [string, number, (body: GraphBuilder, state: string) => string][] = [
  [
    'Upsample and Slice',
    9,
    (g, state) => {
      const image = g.op('Unsqueeze', [state], { axes: ints(0) });
      const scales = g.constant('float32', [4], [1, 1, 2, 1]);
      const large = g.op('Upsample', [image, scales], { mode: { text: 'nearest' } });
      const cut = { starts: ints(1), ends: { ints: [2n ** 63n - 1n] }, axes: ints(2) };
      return g.op('Squeeze', [g.op('Slice', [large], cut)], { axes: ints(0) });
    },
  ],
  [
    'Resize 10',
    10,
    (g, state) => {
      const image = g.op('Unsqueeze', [state], { axes: ints(0) });
      const scales = g.constant('float32', [4], [1, 1, 1, 2]);
      const large = g.op('Resize', [image, scales], { mode: { text: 'linear' } });
      return g.op('Squeeze', [large], { axes: ints(0) });
    },
  ],
  [
    'Scatter',
    10,
    (g, state) => {
      const at = g.constant('int64', [1, 1, 2], [1, 0]);
      const what = g.constant('float32', [1, 1, 2], [7, 9]);
      return g.op('Scatter', [state, at, what], { axis: { int: 2 } });
    },
  ],
  [
    'TopK 1',
    9,
    (g, state) => {
      const [largest] = g.ops('TopK', [state], 2, { k: { int: 2 }, axis: { int: 2 } });
      return g.op('Concat', [largest!, state], { axis: { int: 2 } });
    },
  ],
  [
    'Clip, Pad and Softmax',
    9,
    (g, state) => {
      const bounds = { min: { float: -0.5 }, max: { float: 0.25 } };
      const padded = { pads: ints(0, 0, 0, 0, 1, 0), value: { float: 2 } };
      return g.op('Softmax', [g.op('Pad', [g.op('Clip', [state], bounds)], padded)]);
    },
  ],
  [
    'what an If within it runs',
    10,
    (g, state) => {
      const branch = (name: string, opType: string) =>
        bodyAttribute(g, name, (inner) => {
          const column = inner.op('Unsqueeze', [state], { axes: ints(3) });
          const value = inner.op('Squeeze', [inner.op(opType, [column])], { axes: ints(3) });
          inner.outputs.push({ name: value, dtype: 'float32', shape: null });
        });
      const branches = {
        then_branch: branch('then_branch', 'Neg'),
        else_branch: branch('else_branch', 'Sin'),
      };
      return g.op('If', [g.op('Equal', ['round', g.scalar('int64', 1)])], branches);
    },
  ],
];

test.each(inLoops)('a loop over %s of opset %i computes the same', async (_, opset, build) => {
  const old = loopGraph(opset, build);
  const raised = raiseOpset(old, await inferTypes(old));
  expect(raised.opset).toBe(17);
  expect(await outputOf(raised)).toEqual(await outputOf(old));
});

test('names the node in a loop that has no newer form here', () => {
  const old = loopGraph(8, (g, state) =>
    g.op('BatchNormalization', [state, 'a', 'b', 'c', 'd'], { spatial: { int: 0 } }),
  );
  expect(() => raiseOpset(old, new Map())).toThrow(
    /batchnormalization: .* old form of BatchNormalization to opset 17/,
  );
});
