/** GroupQueryAttention against ONNX Runtime's own kernel: its values, and finite differences of it. */
import { expect, test } from 'vitest';
import { differentiate } from '../../../src/autodiff/differentiate.js';
import type { Attributes } from '../../../src/graph/builder.js';
import { collect } from '../../../src/onnx/edit.js';
import { inferTypes } from '../../../src/runtime/infer-types.js';
import { openSession } from '../../../src/runtime/session.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { randomNumbers } from '../../support/adapters.js';
import { byKernel, byParts, graphOf, type Inputs, type MicrosoftNode, run } from './kernel.js';

/** Choices that follow from a seed. */
class Dice {
  private count = 0;
  constructor(private readonly seed: number) {}

  pick<T>(...choices: readonly T[]): T {
    const [z] = randomNumbers(this.seed * 1009 + this.count++, 1);
    return choices[Math.floor((Math.abs(z!) * 1000) % choices.length)]!;
  }

  numbers(...dims: readonly number[]): TensorValue {
    const count = dims.reduce((a, b) => a * b, 1);
    const values = randomNumbers(this.seed * 1009 + this.count++, count);
    return { dtype: 'float32', dims, data: Float32Array.from(values) };
  }
}

const int32 = (...values: number[]): TensorValue => ({
  dtype: 'int32',
  dims: [values.length],
  data: Int32Array.from(values),
});

const int64 = (dims: readonly number[], values: readonly number[]): TensorValue => ({
  dtype: 'int64',
  dims,
  data: BigInt64Array.from(values, BigInt),
});

interface Case {
  readonly node: MicrosoftNode;
  readonly title: string;
  /** The tokens that count of each sample: what the kernel gives for those behind them is left to chance. */
  readonly lengths: readonly number[];
}

/** A node with random sizes and options. */
function randomCase(seed: number): Case {
  const dice = new Dice(seed);
  const cache = dice.pick(
    'no cache',
    'empty cache',
    'empty cache',
    'full cache',
    'cache with room',
  );
  const [groups, each, rows] = [dice.pick(1, 2), dice.pick(1, 2, 3), dice.pick(1, 2, 3, 5)];
  const isFilled = cache === 'full cache' || cache === 'cache with room';
  const batch = isFilled && rows > 1 ? 1 : dice.pick(1, 2, 3);
  const doRotary = dice.pick(true, false);
  const size = doRotary ? dice.pick(16, 32) : dice.pick(8, 24);
  const before = cache === 'full cache' ? 3 : 0;
  const room = cache === 'cache with room' ? rows + 4 : before;
  const total = before + rows;
  const lengths = Array.from({ length: batch }, (_, i) =>
    i > 0 && before === 0 ? dice.pick(...Array.from({ length: rows }, (_, k) => k + 1)) : total,
  );
  const heads = groups * each;
  const inputs: Record<string, TensorValue> = {};
  const names: string[] = [];
  const title = [cache];
  const attributes: Record<string, Attributes[string]> = {
    num_heads: { int: heads },
    kv_num_heads: { int: groups },
  };
  const put = (made: Inputs, isWanted = true) => {
    if (isWanted) Object.assign(inputs, made);
    for (const name of Object.keys(made)) names.push(isWanted ? name : '_');
  };
  const set = (name: string, value: Attributes[string], isWanted: boolean) => {
    if (isWanted) attributes[name] = value;
    if (isWanted) title.push(name);
  };
  const isPacked = dice.pick(true, false);
  const width = (isPacked ? heads + 2 * groups : heads) * size;
  const kv = () => dice.numbers(batch, rows, groups * size);
  put({ query: dice.numbers(batch, rows, width) });
  put({ key: kv(), value: kv() }, !isPacked);
  const past = () => dice.numbers(batch, groups, room, size);
  put({ pastKey: past(), pastValue: past() }, cache !== 'no cache');
  put({ lengths: int32(...lengths.map((length) => length - 1)), total: int32(total) });
  const half = size === 32 ? dice.pick(8, 16) : 8;
  put({ cos: dice.numbers(16, half), sin: dice.numbers(16, half) }, doRotary);
  const places = Array.from({ length: batch * rows }, () => dice.pick(0, 1, 2, 5));
  put({ positions: int64([batch, rows], places) }, doRotary && dice.pick(true, false));
  const biasDims = [dice.pick(1, batch), dice.pick(1, heads), rows, total];
  put({ bias: dice.numbers(...biasDims) }, dice.pick(true, false));
  put({ sink: dice.numbers(heads) }, dice.pick(true, false, false));
  set('do_rotary', { int: 1 }, doRotary);
  set('rotary_interleaved', { int: 1 }, dice.pick(true, false));
  set('smooth_softmax', { int: 1 }, !inputs.sink && dice.pick(true, false, false));
  set('local_window_size', { int: dice.pick(1, 2, 3) }, dice.pick(true, false));
  const isWindowed = cache === 'cache with room' && attributes.local_window_size !== undefined;
  set('sliding_window_cache', { int: 1 }, isWindowed && dice.pick(true, false));
  const isCausal = attributes.local_window_size !== undefined || dice.pick(true, true, false);
  set('causal', { int: 0 }, !isCausal);
  set('softcap', { float: dice.pick(0.7, 2) }, dice.pick(true, false, false));
  set('scale', { float: dice.pick(0.1, 0.5) }, dice.pick(true, false));
  const isOpen = dice.pick(true, false);
  const symbols = isOpen ? openSizes(inputs, cache !== 'no cache') : undefined;
  const outputs = ['y', ...(cache === 'no cache' ? [] : ['presentKey', 'presentValue'])];
  const given = names.slice(0, names.findLastIndex((name) => name !== '_') + 1).join(' ');
  const opType = 'GroupQueryAttention';
  return {
    node: { opType, names: given, inputs, attributes, outputs, symbols },
    title: `${given}: ${title.join(', ')}`,
    lengths: before > 0 ? lengths.map(() => rows) : lengths,
  };
}

/** Sizes as a decoder declares them. */
function openSizes(inputs: Inputs, hasCache: boolean) {
  const sizes = (name: string) => inputs[name]?.dims ?? [];
  return {
    query: ['batch', 'rows', sizes('query')[2]!],
    ...(inputs.key ? { key: ['batch', 'rows', sizes('key')[2]!] } : {}),
    ...(inputs.value ? { value: ['batch', 'rows', sizes('value')[2]!] } : {}),
    lengths: ['batch'],
    ...(hasCache
      ? {
          pastKey: ['batch', sizes('pastKey')[1]!, 'past', sizes('pastKey')[3]!],
          pastValue: ['batch', sizes('pastKey')[1]!, 'past', sizes('pastKey')[3]!],
        }
      : {}),
  };
}

test.each<[string, string, Attributes]>([
  ['a window of 0', 'a window of 0 leaves nothing', { local_window_size: { int: 0 } }],
  [
    'a quantized cache',
    'a quantized cache (k_quant_type)',
    { k_quant_type: { text: 'PER_TENSOR' } },
  ],
])('%s is refused', async (_, reason, attributes) => {
  const { node } = randomCase(1);
  const refused = { ...node, attributes: { ...node.attributes, ...attributes } };
  await expect(byParts(refused)).rejects.toThrow(reason);
});

test('heads are normalized where the node has gains for them', async () => {
  const size = 8;
  const [query, key, value] = [1, 2, 3].map((seed) => new Dice(seed).numbers(2, 3, size));
  const [queryGain, keyGain] = [4, 5].map((seed) => new Dice(seed).numbers(size));
  const attributes = { num_heads: { int: 1 }, kv_num_heads: { int: 1 } };
  const lengths = { lengths: int32(2, 2), total: int32(3) };
  const names = 'query key value _ _ lengths total';
  const node = { opType: 'GroupQueryAttention', attributes, outputs: ['y'] };
  // The kernel of CPUs has no norm: it gets numbers that are normalized.
  const expected = await byKernel({
    ...node,
    names,
    inputs: {
      query: normalized(query!, queryGain!),
      key: normalized(key!, keyGain!),
      value: value!,
      ...lengths,
    },
  });
  const inputs = { query: query!, key: key!, value: value!, ...lengths };
  const found = await byParts({
    ...node,
    names: `${names} _ _ _ _ _ _ _ queryGain keyGain`,
    inputs: { ...inputs, queryGain: queryGain!, keyGain: keyGain! },
  });
  for (const [i, y] of expected[0]!.entries()) expect(found[0]![i]).toBeCloseTo(y, 5);
});

function normalized({ dtype, dims, data }: TensorValue, gain: TensorValue): TensorValue {
  const size = dims.at(-1)!;
  const x = data as Float32Array;
  const scales = (gain.data as Float32Array).slice();
  const result = x.map((value, i) => {
    const row = x.subarray(size * Math.floor(i / size), size * (Math.floor(i / size) + 1));
    const square = row.reduce((sum, one) => sum + one * one, 0) / size;
    return (scales[i % size]! * value) / Math.sqrt(square + 1e-6);
  });
  return { dtype, dims, data: result };
}

/** 1 for each number of a token that counts, else 0. */
function counted({ node, lengths }: Case, size: number): Float32Array {
  const [batch, rows] = node.inputs.query!.dims as [number, number];
  const width = size / (batch * rows);
  return Float32Array.from({ length: size }, (_, i) => {
    const token = Math.floor(i / width);
    return token % rows < lengths[Math.floor(token / rows)]! ? 1 : 0;
  });
}

/** One token a sample behind a cache that holds less of the second sample than it has room for. */
function unequalCase(seed: number, room: number): Case {
  const dice = new Dice(seed);
  const [heads, groups, size, total] = [4, 2, 8, 4];
  const numbers = (count: number, rows: number) => dice.numbers(3, count, rows, size);
  const inputs = {
    query: dice.numbers(3, 1, (heads + 2 * groups) * size),
    ...{ pastKey: numbers(groups, room), pastValue: numbers(groups, room) },
    ...{ lengths: int32(total - 1, 1, 2), total: int32(total) },
    bias: dice.numbers(dice.pick(1, 3), dice.pick(1, heads), 1, total),
  };
  const names = 'query _ _ pastKey pastValue lengths total _ _ _ bias';
  const attributes = { num_heads: { int: heads }, kv_num_heads: { int: groups } };
  const outputs = ['y', 'presentKey', 'presentValue'];
  const symbols = dice.pick(openSizes(inputs, true), undefined);
  return {
    node: { opType: 'GroupQueryAttention', names, inputs, attributes, outputs, symbols },
    title: `a bias and samples of unequal lengths, room for ${room}`,
    lengths: [1, 1, 1],
  };
}

const cases = [
  ...[3, 4, 7].flatMap((room) => [unequalCase(room, room), unequalCase(10 + room, room)]),
  ...Array.from({ length: 40 }, (_, i) => randomCase(i + 1)),
];

test.each(cases)('values, $title', async (one) => {
  const [kernel, parts] = [await byKernel(one.node), await byParts(one.node)];
  const counts = counted(one, kernel[0]!.length);
  const errors = kernel[0]!.map((y, i) => (counts[i] ? Math.abs(y - parts[0]![i]!) : 0));
  expect(Math.max(...errors)).toBeLessThan(2e-6);
});

test.each(cases.slice(0, 31))('gradients, $title', async (one) => {
  const { node } = one;
  const wanted = Object.keys(node.inputs).filter(isTrained);
  const graph = graphOf(node);
  const types = await inferTypes(graph);
  const [y] = await byKernel(node);
  const dims = types.get('y')!.shape!;
  graph.inputs.push({ name: 'weights', dtype: 'float32', shape: dims });
  const weights = counted(one, y!.length).map((on, i) => on * Math.sin(3 * i + 1));
  const width = y!.length / (node.inputs.query!.dims[0]! * node.inputs.query!.dims[1]!);
  const given = {
    dtype: 'float32',
    dims: [...node.inputs.query!.dims.slice(0, 2), width],
    data: weights,
  } as const;
  const loss = graph.op('ReduceSum', [graph.op('Mul', ['y', 'weights'])], { keepdims: { int: 0 } });
  const gradients = differentiate(graph, await inferTypes(graph), loss, wanted);
  const found = await run(graph, { ...node.inputs, weights: given }, [...gradients.values()]);
  const kernel = await openKernel(node, weights);
  for (const [i, name] of wanted.entries()) {
    for (const direction of [1, 2, 3].map((k) => randomNumbers(k, found[i]!.length))) {
      const expected = await kernel.slope(name, direction);
      const slope = found[i]!.reduce((sum, g, k) => sum + g * direction[k]!, 0);
      expect(Math.abs(slope - expected), name).toBeLessThan(1e-4 * Math.max(1, Math.abs(expected)));
    }
  }
  await kernel.release();
});

function isTrained(name: string): boolean {
  return /^(query|key|value|bias|sink)$/.test(name);
}

/** Differences of Σ weights · y along a direction of an input, exact but for the fourth power of the step. */
async function openKernel(node: MicrosoftNode, weights: Float32Array) {
  const graph = graphOf(node);
  graph.outputs.push({ name: 'y', dtype: undefined, shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  const lossAt = async (name: string, direction: ArrayLike<number>, by: number) => {
    const { dims, data } = node.inputs[name]!;
    const moved = (data as Float32Array).map((x, i) => x + by * direction[i]!);
    const feeds = { ...node.inputs, [name]: { dtype: 'float32', dims, data: moved } as const };
    const y = (await session.run(new Map(Object.entries(feeds)))).get('y')!.data as Float32Array;
    return y.reduce((sum, value, i) => sum + (weights[i] ? value * weights[i] : 0), 0);
  };
  return {
    release: () => session.release(),
    slope: async (name: string, direction: ArrayLike<number>) => {
      const h = 0.01;
      const at = (by: number) => lossAt(name, direction, by);
      const [near, far] = [(await at(h)) - (await at(-h)), (await at(2 * h)) - (await at(-2 * h))];
      return (8 * near - far) / (12 * h);
    },
  };
}
