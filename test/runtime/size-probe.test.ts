import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { Dim } from '../../src/onnx/model.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { SizeProbe } from '../../src/runtime/size-probe.js';

function graphOf(inputs: Readonly<Record<string, readonly Dim[]>>): GraphBuilder {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  for (const [name, shape] of Object.entries(inputs)) {
    graph.reserve(name);
    graph.inputs.push({ name, dtype: 'float32', shape });
  }
  return graph;
}

async function shapeOf(
  graph: GraphBuilder,
  value: string,
  sizes: Readonly<Record<string, number>>,
) {
  const types = await inferTypes(graph, new SizeProbe(new Map(Object.entries(sizes))));
  return types.get(value)?.shape;
}

describe('shapes from two sizes', () => {
  it('are symbols where a graph computes them', async () => {
    const graph = graphOf({ x: ['batch', 'length', 12] });
    const sizes = graph.op('Shape', ['x']);
    const [batch, length] = [0, 1].map((axis) =>
      graph.op('Gather', [sizes, graph.integers([axis])]),
    );
    const heads = graph.integers([3, 4]);
    const shape = graph.op('Concat', [batch!, length!, heads], { axis: { int: 0 } });
    const y = graph.op('Reshape', ['x', shape]);
    expect(await shapeOf(graph, y, { batch: 8, length: 16 })).toEqual(['batch', 'length', 3, 4]);
  });

  it('are numbers where both sizes agree, and have a name where they are neither', async () => {
    const graph = graphOf({ x: ['batch', 'length', 12] });
    const flat = graph.op('Reshape', ['x', graph.integers([-1, 6])]);
    const twice = graph.op('Concat', [flat, flat], { axis: { int: 0 } });
    const [rows, columns] = (await shapeOf(graph, flat, { batch: 8, length: 16 }))!;
    expect(columns).toBe(6);
    expect(typeof rows).toBe('string');
    expect(await shapeOf(graph, twice, { batch: 8, length: 16 })).not.toEqual([rows, 6]);
  });

  it.each([1, 2, 3, 4])('do not take %d times one symbol for another', async (times) => {
    const graph = graphOf({ x: ['batch', 5], z: ['length', 5] });
    const y = graph.op('Concat', Array<string>(times).fill('x'), { axis: { int: 0 } });
    const sizes = { batch: 8, length: 8 * times };
    const [rows] = (await shapeOf(graph, y, sizes))!;
    if (times === 1) expect(rows).toBe('batch');
    else expect(['batch', 'length']).not.toContain(rows);
  });

  it('never have one name for two symbols', () => {
    const sizes = fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(sizes, (numbers) => {
        const symbols = numbers.map((_, i) => `s${i}`);
        const probe = new SizeProbe(new Map(symbols.map((symbol, i) => [symbol, numbers[i]!])));
        const at = (which: 0 | 1) =>
          ({ dtype: 'float32', shape: probe.shapeAt(symbols, which) }) as const;
        expect(probe.merge(at(0), at(1)).shape).toEqual(symbols);
        for (const which of [0, 1] as const) {
          for (const size of probe.shapeAt(symbols, which)!) expect(size).toBeGreaterThan(1);
        }
      }),
    );
  });

  it('know a size that has a name of its own at each input', async () => {
    const graph = graphOf({ x: ['x_0', 'x_1', 6], mask: ['mask_0', 'mask_1', 1] });
    const y = graph.op('Mul', ['x', 'mask']);
    const sizes = { x_0: 8, x_1: 128, mask_0: 8, mask_1: 128 };
    expect(await shapeOf(graph, y, sizes)).toEqual(['x_0', 'x_1', 6]);
  });

  it('know a symbol that is the sum of two others', async () => {
    const graph = graphOf({ past: ['past', 6], x: ['length', 6], mask: ['total', 1] });
    const all = graph.op('Concat', ['past', 'x'], { axis: { int: 0 } });
    const y = graph.op('Mul', [all, 'mask']);
    expect(await shapeOf(graph, y, { past: 8, length: 16, total: 24 })).toEqual(['total', 6]);
  });

  it('leave symbols alone that the data do not tell of', async () => {
    const graph = graphOf({ x: ['batch', 'unknown', 6] });
    const y = graph.op('Neg', ['x']);
    const shape = await shapeOf(graph, y, { batch: 8 });
    expect(shape).toHaveLength(3);
    expect([shape![0], shape![2]]).toEqual(['batch', 6]);
    expect(typeof shape![1]).not.toBe('number');
  });

  it('do not hide an error of the graph', async () => {
    const graph = graphOf({ x: ['batch', 6], z: ['batch', 5] });
    const y = graph.op('Add', ['x', 'z']);
    await expect(shapeOf(graph, y, { batch: 8 })).rejects.toThrow('Incompatible dimensions');
  });
});

describe('sizes that a model forbids', () => {
  const pictures = () => {
    const graph = graphOf({
      x: ['batch', 'height', 'width', 'channels'],
      ids: ['batch', 'length'],
    });
    const colours = graph.constant('float32', [3, 5], Array<number>(15).fill(1));
    const pixels = graph.op('MatMul', ['x', colours]);
    const shape = graph.op('Shape', ['x']);
    const batch = graph.op('Slice', [shape, graph.integers([0]), graph.integers([1])]);
    const rest = graph.integers([-1, 5]);
    const rows = graph.op('Concat', [batch, rest], { axis: { int: 0 } });
    // Positions of a picture of 8 x 8.
    const positions = graph.constant('float32', [64, 5], Array<number>(320).fill(1));
    return { graph, y: graph.op('Add', [graph.op('Reshape', [pixels, rows]), positions]) };
  };
  const data = { batch: 2, channels: 3, height: 8, width: 8, length: 6 };

  it('give way to those of the data', async () => {
    const { graph, y } = pictures();
    const types = await inferTypes(graph, new SizeProbe(new Map(Object.entries(data))));
    expect(types.get(y)!.shape).toEqual(['batch', 64, 5]);
    expect(types.get('x')!.shape).toEqual(['batch', 8, 8, 3]);
    expect(types.get('ids')!.shape).toEqual(['batch', 'length']);
  });

  it('leave symbols that are one size as they are', async () => {
    const graph = graphOf({ x: ['batch', 'a'], z: ['batch', 'b'], image: ['batch', 'height'] });
    const sum = graph.op('Add', ['x', 'z']);
    const fixed = graph.op('Add', ['image', graph.constant('float32', [7], Array(7).fill(1))]);
    const y = graph.op('Concat', [sum, fixed], { axis: { int: 1 } });
    const sizes = { batch: 4, a: 6, b: 6, height: 7 };
    const types = await inferTypes(graph, new SizeProbe(new Map(Object.entries(sizes))));
    expect(types.get(fixed)!.shape).toEqual(['batch', 7]);
    expect(typeof types.get(sum)!.shape![1]).toBe('string');
    expect(types.get(y)!.shape![1]).not.toBe(13);
  });

  it('are an error where the data have none that it takes', async () => {
    const { graph } = pictures();
    const sizes = new Map(Object.entries({ ...data, channels: 2 }));
    await expect(inferTypes(graph, new SizeProbe(sizes))).rejects.toThrow(/does not load/);
  });
});
