import { expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { collect } from '../../src/onnx/edit.js';
import { openSession } from '../../src/runtime/session.js';
import { flatGradient, layOut, readFromVector, sizeOf } from '../../src/training/parameters.js';

it('tensors lie one behind the other', () => {
  const laid = layOut([
    { name: 'a', shape: [2, 3], dtype: 'float32' },
    { name: 'b', shape: [], dtype: 'float32' },
    { name: 'c', shape: [4], dtype: 'float16' },
  ]);
  expect(laid.map(({ offset, length }) => [offset, length])).toEqual([
    [0, 6],
    [6, 1],
    [7, 4],
  ]);
  expect(sizeOf(laid)).toBe(11);
});

it.each([7, 9, 10, 13, 17, 21])(
  'what is read from the vector and put together again is the vector, in opset %d',
  async (version) => {
    const graph = new GraphBuilder([{ domain: '', version }], 8);
    const laid = layOut([
      { name: 'a', shape: [2, 3], dtype: 'float32' },
      { name: 'b', shape: [1], dtype: 'float32' },
      { name: 'c', shape: [2, 1, 2], dtype: 'float16' },
    ]);
    graph.inputs.push({ name: 'theta', dtype: 'float32', shape: [11] });
    for (const { name } of laid) graph.reserve(name);
    readFromVector(graph, 'theta', laid);
    const flat = flatGradient(graph, laid, new Map(laid.map(({ name }) => [name, name])));
    for (const name of ['a', 'c', flat])
      graph.outputs.push({ name, dtype: undefined, shape: null });
    const session = await openSession(await collect(graph.modelPieces()));
    const data = Float32Array.from({ length: 11 }, (_, i) => i / 4 - 1);
    const results = await session.run(new Map([['theta', { dtype: 'float32', dims: [11], data }]]));
    expect([...results.get(flat)!.data]).toEqual([...data]);
    expect(results.get('a')).toMatchObject({ dtype: 'float32', dims: [2, 3] });
    expect(results.get('c')).toMatchObject({ dtype: 'float16', dims: [2, 1, 2] });
    await session.release();
  },
);
