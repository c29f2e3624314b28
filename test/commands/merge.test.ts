import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import type { NewAdapter } from '../../src/adapters/factors/factors.js';
import { extract } from '../../src/commands/extract.js';
import { foldAdapters, merge } from '../../src/commands/merge.js';
import type { MergeOptions } from '../../src/commands/unmerged.js';
import { toFloat64 } from '../../src/onnx/dtype.js';
import { type InsertOptions, insertInto, patchFile, trained } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { body, constant, model, node, tensor, value } from '../support/models.js';
import { expectClose, expectSame, feed, maxDifference, run } from '../support/run.js';
import { zooModel } from '../support/zoo.js';

const { onnx } = onnxProto;
const folder = temporaryFolder();

const X = feed([2, 8], [1, -2, 3, -1, 0.5, 2, -3, 1, 0.25, 1, 1, -1, 2, -2, 0.5, 3]);
const OPTIONS = { factors: trained, blocks: 2, rank: 4 };
const ROUNDING = 1e-6;

const wave = (count: number, phase = 0) =>
  Array.from({ length: count }, (_, i) => Math.sin(i + phase) / 2);
const square = (name: string, phase = 0) => tensor(name, [8, 8], wave(64, phase));

/** The model patched at random, and what it is when it is merged. */
async function merged(
  base: Uint8Array,
  options: InsertOptions = {},
  mergeOptions: MergeOptions = {},
) {
  const patched = folder.write(await insertInto(base, { ...OPTIONS, ...options }));
  const output = folder.fresh();
  const { merged } = await foldAdapters(patched, { output, ...mergeOptions });
  return { patched, output, weights: merged, kinds: merged.map(({ kind }) => kind) };
}

/** Merged and patched compute the same, which is not what the base does. */
async function expectFaithful(
  base: Uint8Array,
  { patched, output }: { patched: string; output: string },
  feeds: Parameters<typeof run>[1] = { x: X },
) {
  const expected = await run(patched, feeds);
  expectClose(await run(output, feeds), expected, ROUNDING);
  const [first] = Object.keys(expected);
  const before = (await run(base, feeds))[first!]!.data;
  expect(maxDifference(expected[first!]!.data, before)).toBeGreaterThan(0.05);
}

/** A file as plain data, the numbers of the named tensors left out. */
function withoutNumbers(path: string | Uint8Array, ...names: string[]): unknown {
  const bytes = typeof path === 'string' ? readFileSync(path) : path;
  const decoded = onnx.ModelProto.decode(bytes);
  const clear = (t: { name?: string | null; rawData?: Uint8Array | null } | null | undefined) => {
    if (t?.rawData) t.rawData = new Uint8Array(t.rawData.length);
  };
  for (const t of decoded.graph!.initializer!) if (names.includes(t.name!)) clear(t);
  for (const n of decoded.graph!.node!) {
    if (n.opType === 'Constant' && names.includes(n.output![0]!)) clear(n.attribute![0]!.t);
  }
  return JSON.parse(JSON.stringify(decoded));
}

describe('a weight that only the layer uses', () => {
  it('is replaced in place: the graph is the base’s, only its bytes differ', async () => {
    const base = model({
      nodes: [
        node('MatMul', ['x', 'w'], 'h', {}, 'first'),
        node('Add', ['h', 'b'], 'hb'),
        node('Gemm', ['hb', 'v'], 'y', { transB: 1, alpha: { float: 0.5 } }, 'second'),
      ],
      initializers: [square('w'), square('v', 2), tensor('b', [8], wave(8))],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['in place', 'in place']);
    expect(withoutNumbers(result.output, 'w', 'v')).toEqual(withoutNumbers(base, 'w', 'v'));
    expect(withoutNumbers(result.output, 'w')).not.toEqual(withoutNumbers(base, 'w'));
    await expectFaithful(base, result);
  });

  it('may be the value of a Constant node', async () => {
    const base = model({
      nodes: [constant('w', square('')), node('MatMul', ['x', 'w'], 'y')],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['in place']);
    expect(withoutNumbers(result.output, 'w')).toEqual(withoutNumbers(base, 'w'));
    await expectFaithful(base, result);
  });

  it('may be stored transposed, in half precision, behind other nodes', async () => {
    const base = model({
      nodes: [
        node('Transpose', ['s'], 't', { perm: [1, 0] }),
        node('Cast', ['t'], 'w', { to: 1 }),
        node('MatMul', ['x', 'w'], 'y'),
      ],
      initializers: [tensor('s', [8, 8], wave(64), 'float16')],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['in place']);
    expect(withoutNumbers(result.output, 's')).toEqual(withoutNumbers(base, 's'));
    expectClose(await run(result.output, { x: X }), await run(result.patched, { x: X }), 5e-3);
  });

  it('may be an input too, as before IR 4', async () => {
    const base = model({
      opset: 8,
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [square('w')],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['in place']);
    expect(withoutNumbers(result.output, 'w')).toEqual(withoutNumbers(base, 'w'));
    await expectFaithful(base, result);
  });

  it('may hold its numbers in typed fields', async () => {
    const { rawData: _, ...typed } = square('w');
    const base = model({
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [{ ...typed, floatData: wave(64) }],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['in place']);
    await expectFaithful(base, result);
  });

  it('takes bfloat16 numbers, each rounded once', async () => {
    const base = model({
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [tensor('w', [8, 8], wave(64), 'bfloat16')],
      inputs: [value('x', ['n', 8], 'bfloat16')],
      outputs: [value('y', ['n', 8], 'bfloat16')],
    });
    const full = model({
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [tensor('w', [8, 8], toFloat64('bfloat16', numbersOf(base, 'w'), 64))],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const [half, exact] = [await merged(base), await merged(full)];
    const found = toFloat64('bfloat16', numbersOf(half.output, 'w'), 64);
    const expected = toFloat64('float32', numbersOf(exact.output, 'w'), 64);
    found.forEach((v, i) => {
      expect(Math.abs(v - expected[i]!)).toBeLessThanOrEqual(2 ** -8 * Math.abs(expected[i]!));
    });
  });
});

function numbersOf(path: string | Uint8Array, name: string): Uint8Array {
  const bytes = typeof path === 'string' ? readFileSync(path) : path;
  const { graph } = onnx.ModelProto.decode(bytes);
  return graph!.initializer!.find((t) => t.name === name)!.rawData!.slice();
}

describe('a weight that others use too', () => {
  it('is split off first: the node without adapter computes what it did', async () => {
    const base = model({
      nodes: [
        node('MatMul', ['x', 'w'], 'a', {}, '/adapted/MatMul'),
        node('Gemm', ['x', 'w'], 'b', { transB: 1 }, '/other/Gemm'),
      ],
      initializers: [square('w')],
      inputs: [value('x', ['n', 8])],
      outputs: ['a', 'b'],
    });
    const result = await merged(base, { targets: ['adapted'] });
    expect(result.kinds).toEqual(['split']);
    await expectFaithful(base, result);
    const [found, before] = [await run(result.output, { x: X }), await run(base, { x: X })];
    expectSame({ b: found.b! }, { b: before.b! });
    expect(numbersOf(result.output, 'w')).toEqual(numbersOf(base, 'w'));
  });

  it('is split off where it is an output of the graph', async () => {
    const base = model({
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [square('w')],
      inputs: [value('x', ['n', 8])],
      outputs: ['y', value('w', [8, 8])],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['split']);
    await expectFaithful(base, result);
  });

  it('stays one weight where all share the adapter', async () => {
    const base = twice();
    const result = await merged(base);
    expect(result.kinds).toEqual(['in place']);
    expect(result.weights[0]!.nodes).toEqual(['/one/MatMul', '/two/MatMul']);
    expect(withoutNumbers(result.output, 'w')).toEqual(withoutNumbers(base, 'w'));
    await expectFaithful(base, result);
  });

  it('becomes one for each node where each has its own adapter, and goes away', async () => {
    const base = twice();
    const result = await merged(base, { perNode: true });
    expect(result.kinds).toEqual(['split', 'split']);
    const { graph } = onnx.ModelProto.decode(readFileSync(result.output));
    expect(graph!.initializer!.map(({ name }) => name)).toEqual(['w_merged', 'w_merged_1']);
    await expectFaithful(base, result);
  });

  it('is split off an embedding that is tied to it through Transpose', async () => {
    const base = model({
      nodes: [
        node('Gather', ['table', 'ids'], 'h'),
        node('Transpose', ['table'], 'head', { perm: [1, 0] }),
        node('MatMul', ['h', 'head'], 'y', {}, 'lm_head'),
      ],
      initializers: [tensor('table', [12, 8], wave(96))],
      inputs: [value('ids', ['n'], 'int64')],
      outputs: ['y', 'h'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['split']);
    const feeds = { ids: feed([3], [0, 7, 11], 'int64') };
    await expectFaithful(base, result, feeds);
    const [found, before] = [await run(result.output, feeds), await run(base, feeds)];
    expectSame({ h: found.h! }, { h: before.h! });
  });
});

describe('a weight that nodes with one adapter read in two ways', () => {
  it('is split off for each in its own: by a flag, and through a Transpose', async () => {
    const base = model({
      nodes: [
        node('Gather', ['table', 'ids'], 'e'),
        node('Add', ['e', 'x'], 'h'),
        node('Gemm', ['h', 'table'], 'a', { transB: 1 }, 'flag'),
        node('Transpose', ['table'], 'turned', { perm: [1, 0] }),
        node('MatMul', ['h', 'turned'], 'b', {}, 'turn'),
        node('Sub', ['a', 'b'], 'none'),
        node('Add', ['a', 'none'], 'y'),
      ],
      initializers: [tensor('table', [12, 8], wave(96))],
      inputs: [value('x', [2, 8]), value('ids', [2], 'int64')],
      outputs: ['y', 'none'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['split']);
    const feeds = { x: X, ids: feed([2], [0, 11], 'int64') };
    await expectFaithful(base, result, feeds);
    const { none } = await run(result.output, feeds);
    expect(maxDifference(none!.data, new Float32Array(24))).toBeLessThan(1e-5);
  });
});

/** Two layers with one weight. */
function twice(): Uint8Array {
  return model({
    nodes: [
      node('MatMul', ['x', 'w'], 'h', {}, '/one/MatMul'),
      node('MatMul', ['h', 'w'], 'y', {}, '/two/MatMul'),
    ],
    initializers: [square('w')],
    inputs: [value('x', ['n', 8])],
    outputs: ['y'],
  });
}

describe('a quantized weight', () => {
  it('that DequantizeLinear makes becomes a floating-point one', async () => {
    const base = model({
      nodes: [
        node('DequantizeLinear', ['q', 'scale', 'zero'], 'w', { axis: 1 }),
        node('MatMul', ['x', 'w'], 'y'),
      ],
      initializers: [
        tensor(
          'q',
          [8, 8],
          wave(64).map((v) => Math.round(v * 200)),
          'int8',
        ),
        tensor(
          'scale',
          [8],
          wave(8).map((v) => 0.01 + v * v),
        ),
        tensor('zero', [8], [0, 1, 2, 3, -1, -2, -3, 0], 'int8'),
      ],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['dequantized']);
    const { graph } = onnx.ModelProto.decode(readFileSync(result.output));
    expect(graph!.node!.map(({ opType }) => opType)).toEqual(['MatMul']);
    expect(graph!.initializer!.map(({ name }) => name)).toEqual(['q_merged']);
    await expectFaithful(base, result);
  });

  it('inside MatMulNBits makes it a MatMul, and is removed', async () => {
    const base = model({
      nodes: [
        node(
          'com.microsoft:MatMulNBits',
          ['x', 'q', 's'],
          'y',
          { K: 8, N: 8, bits: 4, block_size: 16 },
          'n',
        ),
      ],
      initializers: [
        tensor(
          'q',
          [8, 1, 8],
          wave(64).map((v) => Math.round(120 + 200 * v)),
          'uint8',
        ),
        tensor('s', [8], wave(8)),
      ],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.kinds).toEqual(['dequantized']);
    const { graph } = onnx.ModelProto.decode(readFileSync(result.output));
    expect(graph!.node!.map(({ opType, name }) => [opType, name])).toEqual([['MatMul', 'n']]);
    expect(graph!.initializer!.map(({ name }) => name)).toEqual(['q_merged']);
    await expectFaithful(base, result);
  });

  it('inside MatMulNBits of float16, with a bias: off by two roundings to float16 at most', async () => {
    const bytes = wave(64).map((v) => Math.round(120 + 200 * v));
    const scales = toFloat64('float16', tensor('', [8], wave(8), 'float16').rawData!, 8);
    const weight = Array.from({ length: 64 }, (_, i) => {
      const [k, n] = [Math.floor(i / 8), i % 8];
      return (((bytes[8 * n + (k >> 1)]! >> (4 * (k & 1))) & 15) - 8) * scales[n]!;
    });
    const sizes = { K: 8, N: 8, bits: 4, block_size: 16 };
    const half = model({
      nodes: [node('com.microsoft:MatMulNBits', ['x', 'q', 's', '', '', 'b'], 'y', sizes, 'n')],
      initializers: [
        tensor('q', [8, 1, 8], bytes, 'uint8'),
        tensor('s', [8], scales, 'float16'),
        tensor('b', [8], wave(8, 1), 'float16'),
      ],
      inputs: [value('x', ['n', 8], 'float16')],
      outputs: [value('y', ['n', 8], 'float16')],
    });
    const full = model({
      nodes: [node('MatMul', ['x', 'w'], 'y', {}, 'n')],
      initializers: [tensor('w', [8, 8], weight)],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const [folded, exact] = [await merged(half), await merged(full)];
    expect(folded.kinds).toEqual(['dequantized']);
    const found = toFloat64('float16', numbersOf(folded.output, 'q_merged'), 64);
    const expected = toFloat64('float32', numbersOf(exact.output, 'w'), 64);
    found.forEach((v, i) => {
      const bound = 2 ** -11 * (Math.abs(weight[i]!) + Math.abs(expected[i]!)) + 2 ** -24;
      expect(Math.abs(v - expected[i]!)).toBeLessThanOrEqual(bound);
    });
    const { graph } = onnx.ModelProto.decode(readFileSync(folded.output));
    expect(graph!.node!.map(({ opType }) => opType)).toEqual(['MatMul', 'Add']);
    expect(graph!.initializer!.map(({ name }) => name).sort()).toEqual(['b', 'q_merged']);
    const x = feed([2, 8], X.data as Float32Array, 'float16');
    const [before, after] = [await run(folded.patched, { x }), await run(folded.output, { x })];
    expect(maxDifference(after.y!.data, before.y!.data)).toBeLessThan(2e-2);
  });

  it('of a data file goes to one again', async () => {
    const data = { q: wave(64).map((v) => Math.round(120 + 200 * v)), s: wave(8) };
    const q = tensor('q', [8, 1, 8], data.q, 'uint8');
    const entries = { location: 'q.data', offset: '0', length: '64' };
    const outside = {
      ...{ name: 'q', dims: [8, 1, 8], dataType: onnx.TensorProto.DataType.UINT8 },
      dataLocation: onnx.TensorProto.DataLocation.EXTERNAL,
      externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
    };
    const sizes = { K: 8, N: 8, bits: 4, block_size: 16 };
    const base = model({
      nodes: [node('com.microsoft:MatMulNBits', ['x', 'q', 's'], 'y', sizes, 'n')],
      initializers: [outside, tensor('s', [8], data.s)],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const patched = folder.write(await insertInto(base, OPTIONS));
    writeFileSync(join(dirname(patched), 'q.data'), q.rawData!);
    const output = join(dirname(patched), 'merged.onnx');
    await foldAdapters(patched, { output });
    const { graph } = onnx.ModelProto.decode(readFileSync(output));
    const weight = graph!.initializer!.find(({ name }) => name === 'q_merged');
    expect(weight).toMatchObject({ name: 'q_merged', dataLocation: 1 });
    expectClose(await run(output, { x: X }), await run(patched, { x: X }), 1e-5);
  });

  it('that is only cast from integers becomes floats', async () => {
    const base = model({
      nodes: [node('Cast', ['q'], 'w', { to: 1 }), node('MatMul', ['x', 'w'], 'y', {}, 'layer')],
      initializers: [
        tensor(
          'q',
          [8, 8],
          wave(64).map((v) => Math.round(v * 9)),
          'int8',
        ),
      ],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const result = await merged(base);
    expect(result.weights).toMatchObject([{ node: 'layer', kind: 'dequantized' }]);
    await expectFaithful(base, result, { x: X });
  });
});

it('folds into a weight of an If body, captured or its own', async () => {
  const branch = body({
    nodes: [
      node('MatMul', ['x', 'w'], 'a', {}, 'captured'),
      constant('v', square('', 2)),
      node('MatMul', ['a', 'v'], 'b', {}, 'own'),
    ],
    outputs: ['b'],
  });
  const other = body({ nodes: [node('MatMul', ['x', 'w'], 'o', {}, 'else')], outputs: ['o'] });
  const base = model({
    nodes: [
      node('If', ['c'], 'z', { then_branch: { graph: branch }, else_branch: { graph: other } }),
    ],
    initializers: [square('w')],
    inputs: [value('x', ['n', 8]), value('c', [], 'bool')],
    outputs: ['z'],
  });
  const result = await merged(base, { perNode: true });
  const kinds = Object.fromEntries(result.weights.map(({ node, kind }) => [node, kind]));
  expect(kinds).toEqual({ captured: 'split', else: 'split', own: 'in place' });
  for (const c of [0, 1]) {
    await expectFaithful(base, result, { x: X, c: feed([], [c], 'bool') });
  }
});

describe('the weights of a model with external data', () => {
  it.each([
    ['all', 'in place'],
    ['glob:**.query', 'in place'],
  ])('are folded into a data file of its own: %s', async (target, kind) => {
    const patched = folder.fresh();
    const output = folder.fresh('merged.onnx');
    await patchFile(zooModel('bert-external-data'), patched, {
      factors: (planned) => trained(planned, 1, 0.1),
      targets: [target],
    });
    const result = await foldAdapters(patched, { output });
    expect(new Set(result.merged.map((m) => m.kind))).toEqual(new Set([kind]));
    const ids = feed([1, 4], [1, 5, 9, 2], 'int64');
    const feeds = {
      input_ids: ids,
      attention_mask: feed([1, 4], [1, 1, 1, 1], 'int64'),
      token_type_ids: feed([1, 4], [0, 0, 0, 0], 'int64'),
    };
    expectClose(await run(output, feeds), await run(patched, feeds), 1e-5);
    expect(readFileSync(`${output}.data`).length).toBeGreaterThan(360_000);
  });
});

describe('adapter sets', () => {
  const two: InsertOptions = {
    ...OPTIONS,
    name: 'two',
    structure: 'global',
    factors: (planned: readonly NewAdapter[]) => trained(planned, 2),
  };

  it('fold one by one in any order, or all at once, to the same outputs', async () => {
    const base = twice();
    const one = await insertInto(base, { ...OPTIONS, name: 'one' });
    const both = folder.write(await insertInto(one, two));
    const expected = await run(both, { x: X });
    for (const order of [['one', 'two'], ['two', 'one'], [undefined]]) {
      let path = both;
      for (const name of order) {
        const output = folder.fresh();
        await foldAdapters(path, { output, name });
        path = output;
        expectClose(await run(path, { x: X }), expected, ROUNDING);
      }
      expect(withoutNumbers(path, 'w')).toEqual(withoutNumbers(base, 'w'));
    }
  });

  it('beside some of the nodes that share a weight fold where they stand', async () => {
    const one = await insertInto(twice(), { ...OPTIONS, perNode: true, targets: ['one'] });
    const both = folder.write(await insertInto(one, two));
    const output = folder.fresh();
    const result = await foldAdapters(both, { output });
    expect(result.merged.map(({ kind }) => kind)).toEqual(['split', 'split']);
    expectClose(await run(output, { x: X }), await run(both, { x: X }), ROUNDING);
  });
});

describe('options', () => {
  it('scale multiplies ΔW: 0 gives the base, 2 twice the difference', async () => {
    const base = model({
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [square('w')],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });
    const none = await merged(base, {}, { scale: 0 });
    expect(readFileSync(none.output).equals(base)).toBe(true);
    const twofold = await merged(base, {}, { scale: 2 });
    const of = async (path: string | Uint8Array) => (await run(path, { x: X })).y!.data;
    const [before, once, found] = [
      await of(base),
      await of(twofold.patched),
      await of(twofold.output),
    ];
    const expected = once.map((v, i) => 2 * v - before[i]!);
    expect(maxDifference(found, expected)).toBeLessThan(1e-5);
  });

  it('adapter folds a file into a base, as it would be from the patched model', async () => {
    const base = twice();
    const { patched, output } = await merged(base);
    const adapter = folder.fresh('adapter.safetensors');
    await extract(patched, { output: adapter });
    const fromFile = folder.fresh();
    await foldAdapters(folder.write(base), { adapter, output: fromFile });
    expect(readFileSync(fromFile).equals(readFileSync(output))).toBe(true);
  });

  it('verify compares the merged model with the patched one', async () => {
    const patched = folder.write(await insertInto(twice(), OPTIONS));
    const { verification } = await merge(patched, { output: folder.fresh() });
    expect(verification).toMatchObject({ passed: true });
  });
});

describe('refused', () => {
  it('is a model without adapters', async () => {
    await failure(() => foldAdapters(folder.write(twice()), {}), 'no-adapter');
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('is an adapter that holds %f', async (bad) => {
    const factors = (planned: readonly NewAdapter[]) =>
      trained(planned).map((adapter) => ({
        ...adapter,
        values: (factor: Parameters<NewAdapter['values']>[0]) =>
          adapter.values(factor).with(0, bad),
      }));
    const error = await failure(() => merged(twice(), { factors }), 'invalid-adapter');
    expect(error.message).toContain('/one/MatMul: its adapter holds NaN or infinite numbers');
  });
});
