/** MoE and QMoE against ONNX Runtime's own kernels: their values, and central differences of them. */
import { expect, it } from 'vitest';
import { decompose } from '../../../src/autodiff/decompositions/index.js';
import { differentiate } from '../../../src/autodiff/differentiate.js';
import { OpBuilder } from '../../../src/autodiff/op-builder.js';
import type { Attributes, GraphBuilder } from '../../../src/graph/builder.js';
import { inferTypes } from '../../../src/runtime/infer-types.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { randomNumbers } from '../../support/adapters.js';
import { graphOf, type Inputs, type MicrosoftNode, run } from './kernel.js';

// ONNX Runtime 1.30 misreads an odd number of zero points in a row.
const [TOKENS, EXPERTS, WIDTH, INNER] = [5, 4, 32, 32];

function numbers(seed: number, ...dims: readonly number[]): TensorValue {
  const count = dims.reduce((a, b) => a * b, 1);
  return { dtype: 'float32', dims, data: Float32Array.from(randomNumbers(seed, count, 0.5)) };
}

function bytes(seed: number, ...dims: readonly number[]): TensorValue {
  const count = dims.reduce((a, b) => a * b, 1);
  const data = Uint8Array.from(randomNumbers(seed, count, 1), (value) => Math.abs(value) * 997);
  return { dtype: 'uint8', dims, data };
}

function experts(attributes: Attributes, isFused = false): MicrosoftNode {
  const inner = isFused ? 2 * INNER : INNER;
  const inputs = {
    x: numbers(1, 1, TOKENS, WIDTH),
    router: numbers(2, TOKENS, EXPERTS),
    up: numbers(3, EXPERTS, inner, WIDTH),
    upBias: numbers(4, EXPERTS, inner),
    down: numbers(5, EXPERTS, WIDTH, INNER),
    downBias: numbers(6, EXPERTS, WIDTH),
  };
  return {
    opType: 'MoE',
    names: Object.keys(inputs).join(' '),
    inputs,
    attributes,
    outputs: ['y'],
  };
}

/** @param block 0 for one scale a column */
function packed(attributes: Attributes, block: number, hasZeros = false): MicrosoftNode {
  const perRow = (width: number) => (block === 0 ? [] : [width / block]);
  const zeros = {
    upZeros: bytes(9, EXPERTS, 2 * INNER, WIDTH / Math.max(1, block) / 2),
    downZeros: bytes(10, EXPERTS, WIDTH, 1),
  };
  const inputs: Inputs = {
    x: numbers(1, TOKENS, WIDTH),
    router: numbers(2, TOKENS, EXPERTS),
    up: bytes(3, EXPERTS, 2 * INNER, WIDTH / 2),
    upScales: positive(numbers(4, EXPERTS, 2 * INNER, ...perRow(WIDTH))),
    down: bytes(5, EXPERTS, WIDTH, INNER / 2),
    downScales: positive(numbers(6, EXPERTS, WIDTH, ...perRow(INNER))),
    ...(hasZeros ? zeros : {}),
  };
  const names = `x router up upScales _ down downScales _ _ _ _${hasZeros ? ' upZeros downZeros' : ''}`;
  const size: Attributes = block === 0 ? {} : { block_size: { int: block } };
  const own = { ...swiglu, ...size, expert_weight_bits: { int: 4 }, ...attributes };
  return { opType: 'QMoE', names, inputs, attributes: own, outputs: ['y'] };
}

const positive = ({ data, ...rest }: TensorValue): TensorValue => ({
  ...rest,
  data: Float32Array.from(data as Float32Array, (value) => Math.abs(value) / 8 + 0.01),
});

const of = (activation: string, k: number, normalized = 0): Attributes => ({
  activation_type: { text: activation },
  k: { int: k },
  normalize_routing_weights: { int: normalized },
});
const swiglu: Attributes = { ...of('swiglu', 2, 1), swiglu_fusion: { int: 1 } };
const ofGptOss: Attributes = {
  ...swiglu,
  activation_alpha: { float: 1.702 },
  activation_beta: { float: 1 },
  swiglu_limit: { float: 0.75 },
};

const cases: readonly (readonly [string, MicrosoftNode])[] = [
  ['relu, one expert', experts(of('relu', 1))],
  ['gelu, two experts', experts(of('gelu', 2))],
  ['silu, shares of the chosen ones', experts(of('silu', 2, 1))],
  ['identity, all experts', experts(of('identity', EXPERTS))],
  ['swiglu', experts(swiglu, true)],
  ['swiglu within limits', experts(ofGptOss, true)],
  ['4 bits in blocks', packed({}, 16)],
  ['4 bits in blocks with zero points', packed({}, 16, true)],
  ['4 bits within limits', packed(ofGptOss, 16)],
  ['4 bits with a scale a column', packed({}, 0)],
];

const CONSTANT = /^(?:up|down)/;

/** The node alone, its weights as constants. */
function graphWithWeights(node: MicrosoftNode): GraphBuilder {
  const graph = graphOf(node);
  const free = graph.inputs.splice(0).filter(({ name }) => !CONSTANT.test(name));
  graph.inputs.push(...free);
  for (const [name, { dtype, dims, data }] of Object.entries(node.inputs)) {
    if (!CONSTANT.test(name)) continue;
    const { buffer, byteOffset, byteLength } = data as Uint8Array;
    graph.addInitializer({
      ...{ name, dtype, dims: [...dims] },
      data: new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength),
    });
  }
  return graph;
}

const freeOf = ({ inputs }: MicrosoftNode): Inputs =>
  Object.fromEntries(Object.entries(inputs).filter(([name]) => !CONSTANT.test(name)));

const byKernel = (node: MicrosoftNode, given: Inputs = freeOf(node)) =>
  run(graphWithWeights(node), given, ['y']);

it.each(cases)('%s: is what the kernel computes', async (_, node) => {
  const graph = graphWithWeights(node);
  decompose(graph.nodes[0]!, new OpBuilder(graph, await inferTypes(graph)));
  const [[expected], [found]] = [await byKernel(node), await run(graph, freeOf(node), ['y'])];
  const largest = Math.max(...expected!.map(Math.abs));
  for (const [i, value] of expected!.entries()) {
    expect(Math.abs(found![i]! - value)).toBeLessThan(2e-4 * largest);
  }
});

it.each(cases)('%s: has the gradient of the kernel', async (_, node) => {
  const graph = graphWithWeights(node);
  const weights = numbers(11, TOKENS * WIDTH);
  const factors = graph.constant('float32', [TOKENS * WIDTH], [...(weights.data as Float32Array)]);
  const flat = graph.op('Reshape', ['y', graph.integers([-1])]);
  const product = graph.op('Mul', [flat, factors]);
  const loss = graph.op('ReduceSum', [product], { keepdims: { int: 0 } });
  decompose(graph.nodes[0]!, new OpBuilder(graph, await inferTypes(graph)));
  const gradients = differentiate(graph, await inferTypes(graph), loss, ['x', 'router']);
  const names = ['x', 'router'].map((name) => gradients.get(name)!);
  const found = await run(graph, freeOf(node), names);
  for (const [i, name] of ['x', 'router'].entries()) {
    const slopes = await differences(node, name, weights.data as Float32Array);
    const [most, off] = [slopes, slopes.map((slope, j) => slope - found[i]![j]!)].map((values) =>
      Math.hypot(...values),
    ) as [number, number];
    expect(off / (most || 1)).toBeLessThan(0.02);
  }
});

const STEP = 2 ** -8;

/** Central differences of the weighted sum of the kernel's outputs. */
async function differences(node: MicrosoftNode, name: string, weights: Float32Array) {
  const free = freeOf(node);
  const { data, ...rest } = free[name]!;
  const lossAt = async (index: number, by: number) => {
    const moved = Float32Array.from(data as Float32Array);
    moved[index]! += by;
    const [y] = await byKernel(node, { ...free, [name]: { ...rest, data: moved } });
    return y!.reduce((sum, value, i) => sum + value * weights[i]!, 0);
  };
  const slopes: number[] = [];
  for (let i = 0; i < Math.min(data.length, 40); i++) {
    slopes.push(((await lossAt(i, STEP)) - (await lossAt(i, -STEP))) / (2 * STEP));
  }
  return slopes;
}

it.each([
  ['a sparse mixer', { ...swiglu, use_sparse_mixer: { int: 1 } }, 'use_sparse_mixer'],
  ['an unknown activation', of('tanh', 1), 'the activation tanh is not supported'],
])('%s is refused', async (_, attributes, reason) => {
  const graph = graphWithWeights(experts(of('relu', 1), false));
  const node = { ...graph.nodes[0]!, attributes };
  const builder = new OpBuilder(graph, await inferTypes(graph));
  expect(() => decompose(node, builder)).toThrow(reason);
});
