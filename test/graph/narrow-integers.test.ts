import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { narrowInputs } from '../../src/graph/narrow-integers.js';
import { collect } from '../../src/onnx/edit.js';
import { type OpenSessionOptions, openSession } from '../../src/runtime/session.js';
import { type TensorValue, tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import { describeOnWebGpu } from '../support/vulkan.js';

const int = (value: number) => ({ int: value });
const BOOL = 9;
const FLOAT = 1;
const INT64 = 7;

/** The ids [2, 3] and what `build` makes of them. */
function graphOf(build: (graph: GraphBuilder, ids: string) => string): GraphBuilder {
  const graph = new GraphBuilder([{ domain: '', version: 18 }]);
  graph.reserve('ids');
  graph.inputs.push({ name: 'ids', dtype: 'int64', shape: [2, 3] });
  const result = build(graph, 'ids');
  graph.outputs.push({ name: graph.rename(result, 'y'), dtype: undefined, shape: null });
  return graph;
}

async function outputOf(graph: GraphBuilder, options: OpenSessionOptions = {}) {
  const numbers = [1, 0, 3, 2, 1, 0];
  const [{ dtype } = { dtype: undefined }] = graph.inputs;
  const data = dtype === 'int32' ? Int32Array.from(numbers) : BigInt64Array.from(numbers, BigInt);
  const session = await openSession(await collect(graph.modelPieces()), options);
  const ids = { dtype: dtype!, dims: [2, 3], data } as TensorValue;
  const y = (await session.run(new Map([['ids', ids]]))).get('y')!;
  await session.release();
  return { dtype: y.dtype, dims: y.dims, numbers: tensorToFloat64(y) };
}

const opsOf = ({ nodes }: GraphBuilder) => nodes.map(({ opType }) => opType);

/** What models and losses do with ids, masks, lengths and labels; each ends in floats. */
const uses: Readonly<Record<string, (graph: GraphBuilder, ids: string) => string>> = {
  'rows of a table': (graph, ids) =>
    graph.op('Gather', [graph.constant('float32', [4, 1], [4, 3, 2, 1]), ids]),
  'rows by ids in another shape': (graph, ids) => {
    const flat = graph.op('Reshape', [ids, graph.integers([-1])]);
    return graph.op('Gather', [graph.constant('float32', [4], [4, 3, 2, 1]), flat]);
  },
  'a mask of floats': (graph, ids) => {
    const mask = graph.op('Unsqueeze', [graph.op('Cast', [ids], { to: int(BOOL) }), axes(graph)]);
    return graph.op('Cast', [mask], { to: int(FLOAT) });
  },
  'positions counted by a mask': (graph, ids) => {
    const sum = graph.op('CumSum', [ids, graph.scalar('int64', 1)]);
    const positions = graph.op('Sub', [sum, graph.scalar('int64', 1)]);
    return graph.op('Cast', [positions], { to: int(FLOAT) });
  },
  'a comparison with a computed number': (graph, ids) => {
    const size = graph.op('Gather', [graph.op('Shape', [ids]), graph.scalar('int64', 0)]);
    const below = graph.op('Less', [ids, graph.op('Neg', [graph.op('Neg', [size])])]);
    return graph.op('Cast', [below], { to: int(FLOAT) });
  },
  'a choice between two': (graph, ids) => {
    const isZero = graph.op('Equal', [ids, graph.scalar('int64', 0)]);
    const chosen = graph.op('Where', [isZero, graph.scalar('int64', 7), ids]);
    return graph.op('Cast', [chosen], { to: int(FLOAT) });
  },
};

describe('int64 inputs as int32', () => {
  it.each(Object.keys(uses))('give the same: %s', async (use) => {
    const before = await outputOf(graphOf(uses[use]!));
    const graph = graphOf(uses[use]!);
    expect(narrowInputs(graph)).toEqual(new Set(['ids']));
    expect(graph.inputs[0]!.dtype).toBe('int32');
    expect(await outputOf(graph)).toEqual(before);
  });

  it('are int64 again before what takes nothing else', async () => {
    const byPositions = (graph: GraphBuilder, ids: string) => {
      const table = graph.constant('float32', [4, 4, 4], [...new Array(64).keys()]);
      return graph.op('GatherND', [table, ids]);
    };
    const graph = graphOf(byPositions);
    narrowInputs(graph);
    expect(opsOf(graph)).toEqual(['Cast', 'GatherND']);
    expect(await outputOf(graph)).toEqual(await outputOf(graphOf(byPositions)));
  });

  it('are int64 again beside a constant that int32 does not hold', async () => {
    const bounded = (graph: GraphBuilder, ids: string) =>
      graph.op('Less', [ids, graph.scalar('int64', 2 ** 40)]);
    const graph = graphOf(bounded);
    narrowInputs(graph);
    expect(opsOf(graph)).toEqual(['Cast', 'Less']);
    expect(await outputOf(graph)).toEqual(await outputOf(graphOf(bounded)));
  });

  it('are int64 again beside what is made of a constant that int32 does not hold', async () => {
    const masked = (graph: GraphBuilder, ids: string) => {
      const far = graph.op('Expand', [
        graph.scalar('int64', 2n ** 63n - 1n),
        graph.op('Shape', [ids]),
      ]);
      const isZero = graph.op('Equal', [ids, graph.scalar('int64', 0)]);
      const least = graph.op('ReduceMin', [graph.op('Where', [isZero, far, ids])], {
        keepdims: int(0),
      });
      return graph.op('Cast', [least], { to: int(FLOAT) });
    };
    const graph = graphOf(masked);
    narrowInputs(graph);
    const found = await outputOf(graph);
    expect(found.numbers).toEqual(Float64Array.of(1));
    expect(found).toEqual(await outputOf(graphOf(masked)));
  });

  it('leave the type of an output alone', async () => {
    const graph = graphOf((g, ids) => g.op('Reshape', [ids, g.integers([-1])]));
    narrowInputs(graph);
    expect(await outputOf(graph)).toMatchObject({ dtype: 'int64', dims: [6] });
  });

  it('stay where the body of a loop reads them', () => {
    const graph = graphOf((g, ids) => {
      const body = { raw: new Uint8Array(), captures: [ids] };
      return g.op('Loop', [g.scalar('int64', 1)], { body });
    });
    expect(narrowInputs(graph)).toEqual(new Set());
    expect(graph.inputs[0]!.dtype).toBe('int64');
  });

  it('go through a Cast to int64', async () => {
    const graph = graphOf((g, ids) => {
      const copy = g.op('Cast', [ids], { to: int(INT64) });
      return g.op('Cast', [copy], { to: int(FLOAT) });
    });
    narrowInputs(graph);
    expect((await outputOf(graph)).numbers).toEqual(Float64Array.of(1, 0, 3, 2, 1, 0));
  });
});

describeOnWebGpu('int64 inputs as int32 on WebGPU', () => {
  it.each(Object.keys(uses))('have no need of the CPU: %s', async (use) => {
    const graph = graphOf(uses[use]!);
    narrowInputs(graph);
    const found = await outputOf(graph, { provider: 'webgpu', cpuFallback: false });
    expect(found).toEqual(await outputOf(graphOf(uses[use]!)));
  });
});

function axes(graph: GraphBuilder): string {
  return graph.integers([1]);
}
