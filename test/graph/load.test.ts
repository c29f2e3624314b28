import { expect, test } from 'vitest';
import { loadGraph } from '../../src/graph/load.js';
import { raiseOpset } from '../../src/graph/raise-opset.js';
import { collect } from '../../src/onnx/edit.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import { type Attribute, type ModelParts, model, node, tensor, value } from '../support/models.js';
import { parse } from '../support/wire.js';

const TO_THE_END = 2n ** 63n - 1n;
const TO_THE_START = -(2n ** 63n);

async function outputOf(bytes: Uint8Array, x: readonly number[]) {
  const session = await openSession(bytes);
  try {
    const feeds = new Map([
      ['x', { dtype: 'float32', dims: [x.length], data: Float32Array.from(x) } as const],
    ]);
    return (await session.run(feeds)).get('y')!.data;
  } finally {
    await session.release();
  }
}

/** What the file computes, and what the graph that training builds of it does. */
async function bothOutputs(parts: Omit<ModelParts, 'inputs' | 'outputs'>, x = [1, 2, 3, 4, 5]) {
  const bytes = model({ ...parts, inputs: [value('x', ['n'])], outputs: [value('y', ['m'])] });
  const parsed = parse(bytes);
  const graph = loadGraph(parsed, new TensorReader(parsed, new ExternalFiles(parsed)));
  const raised = raiseOpset(graph, await inferTypes(graph));
  return [await outputOf(bytes, x), await outputOf(await collect(raised.modelPieces()), x)];
}

test.each<[string, Record<string, Attribute>, readonly number[]]>([
  ['to the end', { starts: [2], ends: [TO_THE_END] }, [3, 4, 5]],
  ['nearly as far', { starts: [2], ends: [TO_THE_END - 1n] }, [3, 4, 5]],
  ['from before the start', { starts: [TO_THE_START], ends: [2] }, [1, 2]],
  ['from beyond the end', { starts: [TO_THE_END], ends: [TO_THE_END] }, []],
])('a Slice of opset 9 %s', async (_, attributes, expected) => {
  const [own, loaded] = await bothOutputs({
    opset: 9,
    nodes: [node('Slice', ['x'], 'y', { ...attributes, axes: [0] })],
  });
  expect([...own!]).toEqual(expected);
  expect(loaded).toEqual(own);
});

test('a Slice to the end by Constants of value_ints', async () => {
  const [own, loaded] = await bothOutputs({
    nodes: [
      node('Constant', [], 'start', { value_ints: [2] }),
      node('Constant', [], 'end', { value_ints: [TO_THE_END] }),
      node('Slice', ['x', 'start', 'end'], 'y'),
    ],
  });
  expect([...own!]).toEqual([3, 4, 5]);
  expect(loaded).toEqual(own);
});

test.each([TO_THE_END, TO_THE_START, 2n ** 53n + 1n, -(2n ** 53n) - 1n, 7])(
  'the Constants %s of value_int and value_ints keep every digit',
  async (number) => {
    // x · (constant = number), where a rounded constant is another one.
    const stored = tensor('stored', [1], [0], 'int64');
    stored.rawData = new Uint8Array(BigInt64Array.of(BigInt(number)).buffer);
    const [own, loaded] = await bothOutputs(
      {
        nodes: [
          node('Constant', [], 'one', { value_int: number }),
          node('Constant', [], 'list', { value_ints: [number, number] }),
          node('Equal', ['one', 'stored'], 'same'),
          node('Equal', ['list', 'stored'], 'all the same'),
          node('And', ['same', 'all the same'], 'both'),
          node('Cast', ['both'], 'factor', { to: 1 }),
          node('Mul', ['x', 'factor'], 'y'),
        ],
        initializers: [stored],
      },
      [3, 5],
    );
    expect([...own!]).toEqual([3, 5]);
    expect(loaded).toEqual(own);
  },
);

test('Constants of more numbers than a parsed attribute keeps', async () => {
  const count = 70_000;
  const numbers = Array.from({ length: count }, (_, i) => i % 7);
  const [own, loaded] = await bothOutputs(
    {
      nodes: [
        node('Constant', [], 'ints', { value_ints: numbers }),
        node('Constant', [], 'floats', { value_floats: { floats: numbers } }),
        node('Cast', ['ints'], 'cast', { to: 1 }),
        node('Add', ['cast', 'floats'], 'sum'),
        node('Mul', ['sum', 'x'], 'y'),
      ],
    },
    [1],
  );
  expect(own).toHaveLength(count);
  expect(loaded).toEqual(own);
});
