/** Gradient rules against central differences: the rule and its operator both run in ONNX Runtime. */
import { expect } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import type { FloatName } from '../../src/onnx/dtype.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession } from '../../src/runtime/session.js';
import type { Feeds, TensorValue } from '../../src/runtime/tensor-value.js';

export interface Case {
  /** Builds the operator under test from the input names; gives its (first) output. */
  build(graph: GraphBuilder, inputs: readonly string[]): string;
  /** Shapes of the differentiable inputs. */
  shapes: readonly (readonly number[])[];
  dtype?: FloatName;
  opset?: number;
  /** Declares the inputs with symbolic sizes instead of their own. */
  dynamic?: boolean;
  /** From a standard normal number to one in the operator's domain. */
  domain?: (z: number, input: number) => number;
  tolerance?: number;
  seed?: number;
}

/**
 * Compares the gradients of Σ w·f(x), with fixed random weights w, to central differences along
 * every coordinate.
 */
export async function checkGradients(one: Case): Promise<void> {
  const { shapes, dtype = 'float64', opset = 17, seed = 1, domain = (z) => z } = one;
  const graph = new GraphBuilder(
    [
      { domain: '', version: opset },
      { domain: 'com.microsoft', version: 1 },
    ],
    opset >= 21 ? 10 : 8,
  );
  const names = shapes.map((shape, i) => {
    const name = `x${i}`;
    const sizes = one.dynamic ? shape.map((_, axis) => `d${i}_${axis}`) : shape;
    graph.reserve(name);
    graph.inputs.push({ name, dtype, shape: sizes });
    return name;
  });
  const output = one.build(graph, names);
  const shapeOfOutput = (await inferTypes(graph)).get(output)!.shape;
  graph.reserve('w');
  graph.inputs.push({ name: 'w', dtype, shape: shapeOfOutput });
  const loss = graph.op(
    'ReduceSum',
    [graph.op('Mul', [output, 'w'])],
    { keepdims: { int: 0 } },
    'loss',
  );
  const gradients = differentiate(graph, await inferTypes(graph), loss, names);
  graph.outputs.push({ name: loss, dtype, shape: [] });
  for (const name of gradients.values()) graph.outputs.push({ name, dtype, shape: null });
  const session = await openSession(await collect(withOutput(graph, output, dtype)));
  const random = generator(seed);
  const values = shapes.map((shape, i) =>
    Float64Array.from({ length: count(shape) }, () => domain(normal(random), i)),
  );
  const feeds = (points: readonly Float64Array[], w: TensorValue): Feeds =>
    new Map([
      ...names.map((name, i) => [name, tensor(dtype, shapes[i]!, points[i]!)] as const),
      ['w', w],
    ]);
  try {
    const shape = await outputShape(
      graph,
      output,
      dtype,
      feeds(values, tensor(dtype, [], Float64Array.of(1))),
    );
    const w = tensor(
      dtype,
      shape,
      Float64Array.from({ length: count(shape) }, () => normal(random)),
    );
    const lossAt = async (points: readonly Float64Array[]) =>
      Number((await session.run(feeds(points, w))).get(loss)!.data[0]);
    const found = await session.run(feeds(values, w));
    const step = dtype === 'float64' ? 1e-5 : 1e-2;
    for (const [i, name] of names.entries()) {
      const gradient = found.get(gradients.get(name)!)!;
      expect(gradient.dims, `shape of the gradient of input ${i}`).toEqual([...shapes[i]!]);
      const expected = new Float64Array(values[i]!.length);
      for (let k = 0; k < expected.length; k++) {
        const moved = (by: number) =>
          values.map((v, j) => (j === i ? v.map((x, n) => (n === k ? x + by : x)) : v));
        expected[k] = ((await lossAt(moved(step))) - (await lossAt(moved(-step)))) / (2 * step);
      }
      const error = distance(Float64Array.from(gradient.data as Float64Array), expected);
      const limit = one.tolerance ?? (dtype === 'float64' ? 1e-6 : 2e-2);
      expect(error, `relative error of the gradient of input ${i}`).toBeLessThan(limit);
    }
  } finally {
    await session.release();
  }
}

/** The operator alone: w does not fit it yet. */
async function outputShape(graph: GraphBuilder, output: string, dtype: FloatName, feeds: Feeds) {
  const alone = new GraphBuilder(graph.opsets, graph.irVersion);
  const end = graph.nodes.findIndex((node) => node.outputs.includes(output));
  for (const node of graph.nodes.slice(0, end + 1)) alone.add(node);
  for (const tensor of graph.initializers.values()) alone.addInitializer(tensor);
  for (const input of graph.inputs) if (input.name !== 'w') alone.inputs.push(input);
  const session = await openSession(await collect(withOutput(alone, output, dtype)));
  try {
    return (await session.run(feeds)).get(output)!.dims;
  } finally {
    await session.release();
  }
}

function withOutput(graph: GraphBuilder, output: string, dtype: FloatName) {
  graph.outputs.push({ name: output, dtype, shape: null });
  return graph.modelPieces();
}

function distance(a: Float64Array, b: Float64Array): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return Math.sqrt(difference) / Math.max(Math.sqrt(size), 1e-3);
}

function tensor(dtype: FloatName, dims: readonly number[], values: Float64Array): TensorValue {
  return { dtype, dims, data: dtype === 'float64' ? values : Float32Array.from(values) };
}

function count(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
}
