import { expect, test } from 'vitest';
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

test('names the node that has no newer form here', async () => {
  const old = oldGraph('TopK', { k: { int: 1 } }, [2, 3]);
  old.outputs.pop();
  expect(() => raiseOpset(old, new Map())).toThrow(/topk: .* old form of TopK to opset 17/);
});
