/** What attention is differentiated as computes what ONNX Runtime's own kernels do. */
import { expect, test } from 'vitest';
import { decompose } from '../../../src/autodiff/decompositions/index.js';
import { differentiate } from '../../../src/autodiff/differentiate.js';
import { OpBuilder } from '../../../src/autodiff/op-builder.js';
import { type Attributes, GraphBuilder } from '../../../src/graph/builder.js';
import type { DataTypeName } from '../../../src/onnx/dtype.js';
import { collect } from '../../../src/onnx/edit.js';
import { inferTypes } from '../../../src/runtime/infer-types.js';
import { openSession } from '../../../src/runtime/session.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { randomNumbers } from '../../support/adapters.js';

type Sizes = readonly number[];
type Inputs = Readonly<Record<string, TensorValue>>;

const [B, H, D] = [2, 2, 4];

/** `'q k  mask'` names the inputs in their order, an underscore one that is left out. */
function attention(names: string, domain: string, inputs: Inputs, attributes: Attributes) {
  const graph = new GraphBuilder(
    [
      { domain: '', version: domain === '' ? 24 : 17 },
      { domain: 'com.microsoft', version: 1 },
    ],
    11,
  );
  for (const [name, { dtype, dims }] of Object.entries(inputs)) {
    graph.reserve(name);
    graph.inputs.push({ name, dtype, shape: [...dims] });
  }
  const opType = domain === '' ? 'Attention' : 'MultiHeadAttention';
  const given = names.split(' ').map((name) => (name === '_' ? '' : name));
  // A cache comes back.
  const outputs = given.includes('pastKey') ? ['y', 'key', 'value'] : ['y'];
  graph.add({ name: 'attention', opType, domain, inputs: given, outputs, attributes });
  return graph;
}

async function run(graph: GraphBuilder, inputs: Inputs, outputs: readonly string[]) {
  graph.outputs.length = 0;
  for (const name of outputs) graph.outputs.push({ name, dtype: undefined, shape: null });
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    const results = await session.run(new Map(Object.entries(inputs)));
    return outputs.map((name) => Float32Array.from(results.get(name)!.data as Float32Array));
  } finally {
    await session.release();
  }
}

function numbers(seed: number, ...dims: Sizes): TensorValue {
  const count = dims.reduce((a, b) => a * b, 1);
  return { dtype: 'float32', dims, data: Float32Array.from(randomNumbers(seed, count)) };
}

function mask(dtype: DataTypeName, dims: Sizes, values: readonly number[]): TensorValue {
  const data = dtype === 'float32' ? Float32Array.from(values) : Uint8Array.from(values);
  return { dtype, dims, data };
}

/** Q [B, S, H·D] and K, V [B, T, H·D]. */
function qkv(rows: number, columns: number): Inputs {
  return {
    q: numbers(1, B, rows, H * D),
    k: numbers(2, B, columns, H * D),
    v: numbers(3, B, columns, H * D),
  };
}

const cache = (length: number): Inputs => ({
  pastKey: numbers(4, B, H, length, D),
  pastValue: numbers(5, B, H, length, D),
});

const lengths = (...values: number[]): TensorValue => ({
  dtype: 'int64',
  dims: [values.length],
  data: BigInt64Array.from(values, BigInt),
});

const masked = Number.NEGATIVE_INFINITY;
const least = -3.4028234663852886e38;
const heads = { q_num_heads: { int: H }, kv_num_heads: { int: H } };
const causal = { ...heads, is_causal: { int: 1 } };
const oneWay = { num_heads: { int: H }, unidirectional: { int: 1 } };
const [onnx, microsoft] = ['', 'com.microsoft'];

test.each<[string, string, string, Inputs, Attributes]>([
  ['causal with fewer queries', 'q k v', onnx, qkv(3, 5), causal],
  ['causal with fewer keys', 'q k v', onnx, qkv(4, 2), causal],
  [
    'causal with a cache, and fewer queries',
    'q k v _ pastKey pastValue',
    onnx,
    { ...qkv(2, 3), ...cache(2) },
    causal,
  ],
  [
    'causal with one query and a cache',
    'q k v _ pastKey pastValue',
    onnx,
    { ...qkv(1, 3), ...cache(2) },
    causal,
  ],
  [
    'a row that a boolean mask closes',
    'q k v mask',
    onnx,
    { ...qkv(2, 3), mask: mask('bool', [2, 3], [1, 0, 1, 0, 0, 0]) },
    heads,
  ],
  [
    'a row that a mask of -∞ closes',
    'q k v mask',
    onnx,
    { ...qkv(2, 3), mask: mask('float32', [2, 3], [0.5, masked, 1, masked, masked, masked]) },
    heads,
  ],
  [
    'a row that a mask of the lowest number closes, and one that a number above it leaves',
    'q k v mask',
    onnx,
    {
      ...qkv(3, 3),
      mask: mask(
        'float32',
        [3, 3],
        [...Array(3).fill(least), ...Array(3).fill(-1e38), 0, least, 0],
      ),
    },
    heads,
  ],
  [
    'a row that a mask of the lowest number and causality close together',
    'q k v mask',
    onnx,
    { ...qkv(2, 3), mask: mask('float32', [2, 3], [least, 0, 0, 0, least, 0]) },
    causal,
  ],
  [
    'a row that mask and causality close together',
    'q k v mask',
    onnx,
    { ...qkv(3, 3), mask: mask('bool', [3, 3], [0, 1, 1, 1, 0, 1, 0, 0, 1]) },
    causal,
  ],
  [
    'samples of several lengths',
    'q k v _ _ _ lengths',
    onnx,
    { ...qkv(2, 4), lengths: lengths(1, 3) },
    heads,
  ],
  [
    'samples of several lengths, causal',
    'q k v _ _ _ lengths',
    onnx,
    { ...qkv(2, 4), lengths: lengths(1, 3) },
    causal,
  ],
  ['unidirectional with fewer queries', 'q k v', microsoft, qkv(3, 5), oneWay],
  ['unidirectional with fewer keys', 'q k v', microsoft, qkv(4, 2), oneWay],
  [
    'unidirectional with a cache, and fewer queries',
    'q k v _ _ _ pastKey pastValue',
    microsoft,
    { ...qkv(2, 3), ...cache(2) },
    oneWay,
  ],
])('%s', async (_, names, domain, inputs, attributes) => {
  const graph = attention(names, domain, inputs, attributes);
  const { outputs } = graph.nodes[0]!;
  const expected = await run(graph, inputs, outputs);
  const parts = attention(names, domain, inputs, attributes);
  decompose(parts.nodes[0]!, new OpBuilder(parts, await inferTypes(parts)));
  const found = await run(parts, inputs, outputs);
  for (const [i, values] of expected.entries()) {
    for (const [k, value] of values.entries()) expect(found[i]![k]).toBeCloseTo(value, 5);
  }
});

test('a closed row has a gradient of 0, not NaN', async () => {
  const inputs = {
    ...qkv(2, 3),
    mask: mask('float32', [2, 3], [0, masked, 0, ...Array(3).fill(masked)]),
  };
  const graph = attention('q k v mask', onnx, inputs, heads);
  const loss = graph.op('ReduceSumSquare', ['y'], { keepdims: { int: 0 } });
  const gradients = differentiate(graph, await inferTypes(graph), loss, ['q', 'k', 'v']);
  const [dq, dk, dv] = await run(graph, inputs, [...gradients.values()]);
  const closed = Array.from({ length: B }, (_, b) => [
    ...dq!.slice((2 * b + 1) * H * D, (2 * b + 2) * H * D),
  ]);
  expect(closed.flat().every((value) => value === 0)).toBe(true);
  for (const gradient of [dq!, dk!, dv!]) {
    expect(gradient.some((value) => value !== 0) && gradient.every(Number.isFinite)).toBe(true);
  }
});
