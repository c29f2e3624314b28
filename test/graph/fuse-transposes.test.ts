import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { fuseTransposes } from '../../src/graph/fuse-transposes.js';
import { prune } from '../../src/graph/prune.js';
import { collect } from '../../src/onnx/edit.js';
import { randomNumbers } from '../support/adapters.js';
import { feed, maxDifference, run } from '../support/run.js';

type Dtype = 'float32' | 'float64' | 'float16';

interface Case {
  readonly a: readonly number[];
  readonly b: readonly number[];
  /** Axes of the Transpose before each operand; none where it is undefined. */
  readonly permA?: readonly number[] | undefined;
  readonly permB?: readonly number[] | undefined;
  readonly dtype?: Dtype;
}

function product({ a, b, permA, permB, dtype = 'float32' }: Case): GraphBuilder {
  const graph = new GraphBuilder([{ domain: '', version: 17 }]);
  const operand = (name: string, shape: readonly number[], perm: readonly number[] | undefined) => {
    graph.reserve(name);
    graph.inputs.push({ name, dtype, shape });
    return perm ? graph.op('Transpose', [name], { perm: { ints: perm } }) : name;
  };
  const y = graph.op('MatMul', [operand('a', a, permA), operand('b', b, permB)], {}, 'y');
  graph.outputs.push({ name: y, dtype, shape: null });
  return graph;
}

async function results(graph: GraphBuilder, { a, b, dtype = 'float32' }: Case) {
  const count = (shape: readonly number[]) => shape.reduce((x, y) => x * y, 1);
  const feeds = {
    a: feed(a, randomNumbers(1, count(a)), dtype),
    b: feed(b, randomNumbers(2, count(b)), dtype),
  };
  return (await run(await collect(graph.modelPieces()), feeds, 'all')).y!;
}

/** The operators behind the rewriting, and that it computes the same. */
async function fused(one: Case): Promise<string[]> {
  const expected = await results(product(one), one);
  const graph = product(one);
  fuseTransposes(graph);
  prune(graph);
  const found = await results(graph, one);
  expect(found.dims).toEqual(expected.dims);
  expect(maxDifference(found.data, expected.data)).toBeLessThan(
    one.dtype === 'float16' ? 1e-2 : 1e-5,
  );
  return graph.nodes.map(({ opType }) => opType);
}

/** The shape that `perm` makes `shape` of. */
function before(shape: readonly number[], perm: readonly number[]): number[] {
  return perm.map((_, axis) => shape[perm.indexOf(axis)]!);
}

const swap = (rank: number) =>
  [...Array(rank).keys()].map((axis, i, all) =>
    i === rank - 1 ? rank - 2 : i === rank - 2 ? rank - 1 : all[axis]!,
  );

describe('a product with a transposed operand', () => {
  it('reads it in place, for random shapes', async () => {
    const size = fc.integer({ min: 1, max: 5 });
    const cases = fc.record({
      batch: fc.array(size, { maxLength: 2 }),
      m: size,
      k: size,
      n: size,
      shared: fc.constantFrom('both', 'a', 'b'),
      turned: fc.constantFrom('a', 'b', 'both'),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ batch, m, k, n, shared, turned }) => {
        const [a, b] = [
          [...(shared === 'b' ? [] : batch), m, k],
          [...(shared === 'a' ? [] : batch), k, n],
        ];
        const permA = turned === 'b' ? undefined : swap(a.length);
        const permB = turned === 'a' ? undefined : swap(b.length);
        const one = {
          ...{ a: permA ? before(a, permA) : a, b: permB ? before(b, permB) : b, permA, permB },
        };
        expect(await fused(one)).toEqual(['FusedMatMul']);
      }),
      { numRuns: 80 },
    );
  });

  it.each<[string, Case]>([
    ['moves other axes', { a: [3, 2, 4], permA: [1, 0, 2], b: [4, 5] }],
    ['moves all axes', { a: [4, 3, 2], permA: [2, 1, 0], b: [4, 5] }],
    ['moves other axes as well', { a: [3, 2, 4, 5], permA: [1, 0, 3, 2], b: [4, 6] }],
    ['does nothing', { a: [2, 3], permA: [0, 1], b: [3, 2] }],
  ])('keeps a Transpose that %s', async (_, one) => {
    expect(await fused(one)).toEqual(['Transpose', 'MatMul']);
  });

  it('keeps the Transpose where something else reads it too', async () => {
    const graph = product({ a: [3, 2], permA: [1, 0], b: [3, 4] });
    graph.outputs.push({ name: graph.nodes[0]!.outputs[0]!, dtype: 'float32', shape: null });
    fuseTransposes(graph);
    prune(graph);
    expect(graph.nodes.map(({ opType }) => opType)).toEqual(['Transpose', 'FusedMatMul']);
  });

  it.each<[string, Case]>([
    ['a vector on the right', { a: [3, 2], permA: [1, 0], b: [3] }],
    ['a vector on the left', { a: [3], b: [4, 3], permB: [1, 0] }],
    ['float64', { a: [3, 2], permA: [1, 0], b: [3, 4], dtype: 'float64' }],
    ['float16', { a: [3, 2], permA: [1, 0], b: [3, 4], dtype: 'float16' }],
  ])('still runs with %s', async (_, one) => {
    await fused(one);
  });
});
