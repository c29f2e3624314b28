/** CausalConvWithState against ONNX Runtime's own kernel: its values, and central differences of it. */
import { expect, it } from 'vitest';
import { decompose } from '../../../src/autodiff/decompositions/index.js';
import { differentiate } from '../../../src/autodiff/differentiate.js';
import { OpBuilder } from '../../../src/autodiff/op-builder.js';
import type { Attributes } from '../../../src/graph/builder.js';
import { inferTypes } from '../../../src/runtime/infer-types.js';
import type { TensorValue } from '../../../src/runtime/tensor-value.js';
import { randomNumbers } from '../../support/adapters.js';
import { byKernel, byParts, graphOf, type MicrosoftNode, run } from './kernel.js';

const [BATCH, CHANNELS, LENGTH, TAPS] = [2, 3, 4, 3];

function numbers(seed: number, ...dims: readonly number[]): TensorValue {
  const count = dims.reduce((a, b) => a * b, 1);
  return { dtype: 'float32', dims, data: Float32Array.from(randomNumbers(seed, count)) };
}

function convolution(names: string, attributes: Attributes = {}): MicrosoftNode {
  const all = {
    x: numbers(1, BATCH, CHANNELS, LENGTH),
    kernel: numbers(2, CHANNELS, 1, TAPS),
    bias: numbers(3, CHANNELS),
    past: numbers(4, BATCH, CHANNELS, TAPS - 1),
  };
  const read = Object.entries(all).filter(([name]) => names.split(' ').includes(name));
  const outputs = ['y', 'present'];
  const inputs = Object.fromEntries(read);
  return { opType: 'CausalConvWithState', names, inputs, attributes, outputs };
}

const silu = { activation: { text: 'silu' } };
const cases: readonly (readonly [string, MicrosoftNode])[] = [
  ['alone', convolution('x kernel')],
  ['with all inputs', convolution('x kernel bias past')],
  ['with a state and an activation', convolution('x kernel _ past', silu)],
  ['with an activation', convolution('x kernel bias', { activation: { text: 'swish' } })],
];

it.each(cases)('%s is what the kernel computes', async (_, node) => {
  const [expected, found] = [await byKernel(node), await byParts(node)];
  expect(found.map((values) => values.length)).toEqual(expected.map((values) => values.length));
  for (const [i, values] of expected.entries()) {
    for (const [j, value] of values.entries()) expect(found[i]![j]).toBeCloseTo(value, 5);
  }
});

it.each(cases)('%s has the gradient of the kernel', async (_, node) => {
  const graph = graphOf(node);
  graph.importDomain('com.microsoft', 1);
  const squares = graph.op('Mul', ['y', 'y']);
  const loss = graph.op('ReduceSum', [squares], { keepdims: { int: 0 } });
  const types = await inferTypes(graph);
  decompose(graph.nodes[0]!, new OpBuilder(graph, types));
  const names = ['x', ...(node.inputs.past ? ['past'] : [])];
  const gradients = differentiate(graph, await inferTypes(graph), loss, names);
  const found = await run(
    graph,
    node.inputs,
    names.map((name) => gradients.get(name)!),
  );
  for (const [i, name] of names.entries()) {
    const { data } = node.inputs[name]!;
    for (const [j, value] of found[i]!.entries()) {
      const [up, down] = [await lossAt(node, name, j, STEP), await lossAt(node, name, j, -STEP)];
      expect(value).toBeCloseTo((up - down) / (2 * STEP), 2);
    }
    expect(found[i]).toHaveLength(data.length);
  }
});

const STEP = 2 ** -6;

/** The sum of the kernel's squares with one number of an input moved. */
async function lossAt(node: MicrosoftNode, name: string, index: number, by: number) {
  const { data, ...rest } = node.inputs[name]!;
  const moved = Float32Array.from(data as Float32Array);
  moved[index]! += by;
  const [y] = await byKernel({
    ...node,
    inputs: { ...node.inputs, [name]: { ...rest, data: moved } },
  });
  return y!.reduce((sum, value) => sum + value * value, 0);
}
