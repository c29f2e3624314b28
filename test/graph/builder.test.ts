import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { DataTypeName } from '../../src/onnx/dtype.js';

const graph = () => new GraphBuilder([{ domain: '', version: 17 }]);

describe('a constant of integers', () => {
  it('keeps every digit of a bigint', () => {
    const built = graph();
    const name = built.integers([2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n]);
    const { data } = built.initializers.get(name)!;
    const numbers = new BigInt64Array(new Uint8Array(data as Uint8Array).buffer);
    expect([...numbers]).toEqual([2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n]);
  });

  it.each<[DataTypeName, number, string]>([
    ['int64', 0.5, 'from -9223372036854775808 to 9223372036854775807'],
    ['int64', Number.NaN, 'from -9223372036854775808 to 9223372036854775807'],
    ['int64', Number.POSITIVE_INFINITY, 'from -9223372036854775808 to 9223372036854775807'],
    ['int32', 2 ** 32, 'from -2147483648 to 2147483647'],
    ['int8', 128, 'from -128 to 127'],
    ['uint8', -1, 'from 0 to 255'],
    ['bool', 2, 'from 0 to 1'],
  ])('of type %s refuses %d', (dtype, number, range) => {
    expect(() => graph().scalar(dtype, number)).toThrow(
      `${number} is not a value of ${dtype}, expected a whole number ${range}`,
    );
  });
});

describe('a new node', () => {
  it('has a name that no node of the model has', () => {
    const built = graph();
    built.add({ name: 'cast', opType: 'Relu', inputs: ['x'], outputs: ['y'] });
    built.op('Cast', ['y'], { to: { int: 1 } });
    expect(built.nodes.map(({ name }) => name)).toEqual(['cast', 'cast_1']);
  });
});

describe('a name that thousands of nodes want', () => {
  it('is numbered without counting from one again', () => {
    const built = graph();
    const started = performance.now();
    const names = Array.from({ length: 50_000 }, () => built.fresh('delta'));
    expect([names[0], names[1], names.at(-1)]).toEqual(['delta', 'delta_1', 'delta_49999']);
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it('passes over the numbers that are taken', () => {
    const built = graph();
    for (const name of ['delta', 'delta_2']) built.reserve(name);
    expect([built.fresh('delta'), built.fresh('delta')]).toEqual(['delta_1', 'delta_3']);
  });
});
