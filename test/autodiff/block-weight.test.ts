/** Weights of MatMulNBits by DequantizeLinear, beside what the operator makes of the identity matrix. */
import { expect, test } from 'vitest';
import { dequantizedBlocks } from '../../src/autodiff/block-weight.js';
import { OpBuilder } from '../../src/autodiff/op-builder.js';
import { nodeContext } from '../../src/autodiff/rule.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { ValueType } from '../../src/graph/value-type.js';
import { type DataTypeName, fromFloat64 } from '../../src/onnx/dtype.js';
import { collect } from '../../src/onnx/edit.js';
import { openSession } from '../../src/runtime/session.js';
import { randomNumbers } from '../support/adapters.js';
import { int } from './operators.js';

interface Options {
  readonly k: number;
  readonly n: number;
  readonly block: number;
  readonly bits: 4 | 8;
  readonly zeros: 'none' | 'packed' | 'float';
  readonly dtype: 'float32' | 'float16';
  readonly opset: number;
}

/** A graph with both forms of Wᵀ, from the same random tensors. */
function bothForms({ k, n, block, bits, zeros, dtype, opset }: Options, seed: number) {
  const graph = new GraphBuilder([
    { domain: '', version: opset },
    { domain: 'com.microsoft', version: 1 },
  ]);
  const types = new Map<string, ValueType>();
  const add = (name: string, kind: DataTypeName, dims: number[], data: Uint8Array) => {
    graph.addInitializer({ name, dtype: kind, dims, data });
    types.set(name, { dtype: kind, shape: dims });
  };
  const bytes = (count: number, start: number) =>
    Uint8Array.from(randomNumbers(start, count), (value) => Math.floor((value + 1) * 128));
  const perRow = Math.ceil(k / block);
  const width = (block * bits) / 8;
  const count = n * perRow;
  add('codes', 'uint8', [n, perRow, width], bytes(count * width, seed));
  add('scales', dtype, [count], fromFloat64(dtype, Float64Array.from(randomNumbers(seed, count))));
  const zeroBytes = Math.ceil((perRow * bits) / 8);
  if (zeros === 'packed') add('zeros', 'uint8', [n, zeroBytes], bytes(n * zeroBytes, seed + 1));
  const middle = Float64Array.from(randomNumbers(seed + 2, count), (v) => 8 + 3 * v);
  if (zeros === 'float') add('zeros', dtype, [n, perRow], fromFloat64(dtype, middle));
  const c = new OpBuilder(graph, types);
  const zeroName = zeros === 'none' ? [] : ['zeros'];
  const sizes = { K: int(k), N: int(n), bits: int(bits), block_size: int(block) };
  const node = { name: 'm', opType: 'MatMulNBits', domain: 'com.microsoft', attributes: sizes };
  const inputs = [c.eye(dtype, k), 'codes', 'scales', ...zeroName];
  const product = c.again(node, inputs, { dtype, shape: [k, n] });
  const context = nodeContext({ ...node, inputs, outputs: [product] }, c);
  const [weight, scales] = ['codes', 'scales'];
  const found = dequantizedBlocks(context, {
    ...{ weight, scales, groups: '' },
    zeros: zeroName[0] ?? '',
  });
  return { graph, found, expected: c.transpose(product, [1, 0]) };
}

async function valuesOf(graph: GraphBuilder, names: readonly string[], dtype: DataTypeName) {
  for (const name of names) graph.outputs.push({ name, dtype, shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    const outputs = await session.run(new Map());
    return names.map((name) => outputs.get(name)!);
  } finally {
    await session.release();
  }
}

/** The numbers; 0 and -0 are one. */
function numbers(data: ArrayLike<number | bigint>): number[] {
  return Array.from(data, (value) => Number(value) + 0);
}

const SEEDS = 24;

test.each(Array.from({ length: SEEDS }, (_, seed) => seed))('bit for bit (%i)', async (seed) => {
  const pick = <T>(list: readonly T[], stride: number) =>
    list[Math.floor(seed / stride) % list.length]!;
  const bits = pick([4, 4, 8] as const, 1);
  // ONNX Runtime has no float zero points for 8 bits.
  const zeros = pick(
    bits === 4 ? (['none', 'packed', 'float'] as const) : (['packed'] as const),
    3,
  );
  const options: Options = {
    ...{ k: 17 + ((seed * 31) % 90), n: 1 + (seed % 7), bits, zeros },
    block: pick([16, 32, 64], 2),
    // Rules see float32 copies of float16: there the two round the shift by a float differently.
    dtype: zeros === 'float' ? 'float32' : pick(['float32', 'float16'], 2),
    opset: pick([17, 21], 5),
  };
  const { graph, found, expected } = bothForms(options, seed + 1);
  const [own, theirs] = await valuesOf(graph, [found!, expected], options.dtype);
  expect(own!.dims).toEqual([options.n, options.k]);
  const same = numbers(own!.data).every((value, i) => {
    const other = numbers(theirs!.data)[i]!;
    // Of float16 these are the bits: the operator's product makes 0 of -0.
    return value === other || (options.dtype === 'float16' && value === 0x8000 && other === 0);
  });
  expect(same, JSON.stringify(options)).toBe(true);
});

test('what is not whole bytes of 4 or 8 bits in order is left to the operator', () => {
  const form = (options: object, groups = '') => {
    const { graph } = bothForms(BASE, 1);
    const types = new Map<string, ValueType>([['scales', { dtype: 'float32', shape: [2] }]]);
    const c = new OpBuilder(graph, types);
    const attributes = { K: int(32), N: int(2), bits: int(4), block_size: int(32), ...options };
    const node = { name: 'm', opType: 'MatMulNBits', inputs: [], outputs: ['y'], attributes };
    const inputs = { weight: 'codes', scales: 'scales', zeros: '', groups };
    return dequantizedBlocks(nodeContext(node, c), inputs);
  };
  expect(form({})).toBeDefined();
  expect(form({ bits: int(2) })).toBeUndefined();
  expect(form({ N: int(3) })).toBeUndefined();
  expect(form({}, 'g_idx')).toBeUndefined();
});

const BASE: Options = {
  ...{ k: 32, n: 2, block: 32, bits: 4, zeros: 'none', dtype: 'float32', opset: 17 },
};
