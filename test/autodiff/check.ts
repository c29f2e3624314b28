/**
 * Gradients against central differences in float64. Where ONNX Runtime has no float64 kernel of an
 * operator, its float32 gradient is compared to the differences of an independent float64 reference,
 * and so is the operator itself, so that the reference cannot be of something else.
 */
import { expect } from 'vitest';
import { differentiate } from '../../src/autodiff/differentiate.js';
import { GraphBuilder } from '../../src/graph/builder.js';
import { collect } from '../../src/onnx/edit.js';
import { inferTypes } from '../../src/runtime/infer-types.js';
import { openSession, type Session } from '../../src/runtime/session.js';
import type { Feeds, TensorValue } from '../../src/runtime/tensor-value.js';

type Kind = 'float32' | 'float64';

/** Builds operators from the input names; gives the output. */
export type Build = (graph: GraphBuilder, inputs: readonly string[]) => string;

export interface Case {
  /** The operator under test. */
  readonly build: Build;
  /** Shapes of the differentiable inputs. */
  readonly shapes: readonly (readonly number[])[];
  /** What the operator runs in; float64 unless it has no kernel for that. */
  readonly dtype?: Kind;
  /** For float32: the same function by float64 operators. */
  readonly reference?: Build;
  /** For float32: the same function of each number, or of one number of every input. */
  readonly scalar?: (...x: number[]) => number;
  /**
   * Of degree 2 at most in every coordinate: then a central difference of any width is exact, and one
   * of width 1 is free of cancellation in float32 too.
   */
  readonly polynomial?: boolean;
  readonly opset?: number;
  /**
   * Which sizes the inputs declare as symbols instead of their own: none, all, or batch and sequence
   * lengths as models do ([B, S, width], with one symbol for the same length).
   */
  readonly symbols?: 'none' | 'all' | 'lengths';
  /** From a standard normal number to one in the operator's domain. */
  readonly domain?: (z: number, input: number) => number;
  readonly seed?: number;
}

// float64: cancellation leaves 1e-16 / step, the cut-off Taylor series step². float32: its own rounding.
const STEP = 1e-5;
const TOLERANCE = { float64: 2e-8, float32: 5e-6 };

/**
 * Compares the gradients of Σ w·f(x), with fixed random weights w, to central differences along every
 * coordinate.
 * @returns the largest relative error of an input's gradient
 */
export async function checkGradients(one: Case): Promise<number> {
  const { shapes, polynomial = false, domain = (z) => z } = one;
  const dtype = one.dtype ?? 'float64';
  if (dtype === 'float32' && !polynomial && !one.reference && !one.scalar) {
    throw new Error('a float32 case needs a reference, or to be polynomial');
  }
  const random = generator(one.seed ?? 1);
  const points = shapes.map((shape, i) => {
    const z = Float64Array.from({ length: count(shape) }, () => domain(normal(random), i));
    // The operator and its reference shall see the same numbers.
    return dtype === 'float32' ? Float64Array.from(Float32Array.from(z)) : z;
  });
  const gradients = await runGradients(one, points, random);
  const forward = await openForward(one, gradients);
  const step = polynomial ? 1 : STEP;
  const errors: number[] = [];
  for (const [i, shape] of shapes.entries()) {
    const found = gradients.values[i]!;
    expect(found.dims, `shape of the gradient of input ${i}`).toEqual([...shape]);
    const expected = new Float64Array(points[i]!.length);
    for (let k = 0; k < expected.length; k++) {
      const at = (by: number) => {
        const moved = points.map((p) => p.slice());
        moved[i]![k]! += by;
        return forward.loss(moved);
      };
      expected[k] = ((await at(step)) - (await at(-step))) / (2 * step);
    }
    const error = distance(Float64Array.from(found.data as Float64Array), expected);
    expect(error, `relative error of the gradient of input ${i}`).toBeLessThan(TOLERANCE[dtype]);
    errors.push(error);
  }
  await forward.release();
  return Math.max(...errors);
}

interface Gradients {
  readonly values: readonly TensorValue[];
  /** f(x) */
  readonly output: TensorValue;
  readonly weights: Float64Array;
  readonly points: readonly Float64Array[];
}

/** Runs the operator with its gradients. */
async function runGradients(
  one: Case,
  points: readonly Float64Array[],
  random: () => number,
): Promise<Gradients> {
  const { dtype = 'float64', shapes } = one;
  const { graph, names } = emptyGraph(one, dtype, one.symbols);
  const output = one.build(graph, names);
  const dims = await outputDims(one, dtype, points);
  graph.reserve('w');
  const sizes = (await inferTypes(graph)).get(output)!.shape;
  graph.inputs.push({ name: 'w', dtype, shape: sizes });
  const product = graph.op('Mul', [output, 'w']);
  const loss = graph.op('ReduceSum', [product], { keepdims: { int: 0 } }, 'loss');
  const gradients = differentiate(graph, await inferTypes(graph), loss, names);
  const outputs = [output, loss, ...names.map((name) => gradients.get(name)!)];
  for (const name of new Set(outputs)) graph.outputs.push({ name, dtype, shape: null });
  const weights = Float64Array.from({ length: count(dims) }, () =>
    dtype === 'float32' ? Math.fround(normal(random)) : normal(random),
  );
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    const feeds = feedsOf(dtype, shapes, points).set('w', tensor(dtype, dims, weights));
    const results = await session.run(feeds);
    return {
      values: names.map((name) => results.get(gradients.get(name)!)!),
      output: results.get(output)!,
      weights,
      points,
    };
  } finally {
    await session.release();
  }
}

interface Forward {
  loss(points: readonly Float64Array[]): Promise<number>;
  release(): Promise<void>;
}

/** What the differences are taken of; it has to agree with the operator at the point itself. */
async function openForward(one: Case, { output, weights, points }: Gradients): Promise<Forward> {
  const { reference, scalar, dtype = 'float64' } = one;
  const sum = (values: ArrayLike<number>) =>
    weights.reduce((total, w, i) => total + w * values[i]!, 0);
  const agrees = (values: Float64Array) => {
    const found = Float64Array.from(output.data as Float64Array);
    const error = distance(found, values);
    expect(error, 'the operator against its reference').toBeLessThan(TOLERANCE[dtype]);
  };
  if (scalar) {
    const values = (at: readonly Float64Array[]) =>
      at[0]!.map((_, i) => scalar(...at.map((x) => x[i]!)));
    agrees(values(points));
    return { loss: async (at) => sum(values(at)), release: async () => {} };
  }
  const kind = reference ? 'float64' : dtype;
  const session = await openOperator(one, reference ?? one.build, kind);
  const values = async (at: readonly Float64Array[]) => {
    const results = await session.run(feedsOf(kind, one.shapes, at));
    return Float64Array.from([...results.values()][0]!.data as Float64Array);
  };
  agrees(await values(points));
  return { loss: async (at) => sum(await values(at)), release: () => session.release() };
}

async function outputDims(one: Case, dtype: Kind, points: readonly Float64Array[]) {
  const session = await openOperator(one, one.build, dtype);
  try {
    return [...(await session.run(feedsOf(dtype, one.shapes, points))).values()][0]!.dims;
  } finally {
    await session.release();
  }
}

/** The operator alone, without gradients. */
async function openOperator(one: Case, build: Build, dtype: Kind): Promise<Session> {
  const { graph, names } = emptyGraph(one, dtype);
  const output = build(graph, names);
  graph.outputs.push({ name: output, dtype, shape: null });
  return openSession(await collect(graph.modelPieces()));
}

function emptyGraph({ shapes, opset = 17 }: Case, dtype: Kind, symbols: Case['symbols'] = 'none') {
  const graph = new GraphBuilder(
    [
      { domain: '', version: opset },
      { domain: 'com.microsoft', version: 1 },
    ],
    opset >= 21 ? 10 : 8,
  );
  const names = shapes.map((shape, i) => {
    const name = `x${i}`;
    const sizes = shape.map((size, axis) => {
      if (symbols === 'all') return `d${i}_${axis}`;
      return symbols === 'lengths' && shape.length === 3 && axis < 2 ? `length${size}` : size;
    });
    graph.reserve(name);
    graph.inputs.push({ name, dtype, shape: sizes });
    return name;
  });
  return { graph, names };
}

function feedsOf(
  dtype: Kind,
  shapes: readonly (readonly number[])[],
  points: readonly Float64Array[],
): Map<string, TensorValue> & Feeds {
  return new Map(shapes.map((shape, i) => [`x${i}`, tensor(dtype, shape, points[i]!)]));
}

function distance(a: Float64Array, b: Float64Array): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return Math.sqrt(difference) / Math.max(Math.sqrt(size), 1e-2);
}

function tensor(dtype: Kind, dims: readonly number[], values: Float64Array): TensorValue {
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
