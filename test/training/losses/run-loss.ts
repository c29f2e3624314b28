/** A loss behind a model that is nothing but its logits: value, weight and gradient. */
import { expect } from 'vitest';
import { GraphBuilder } from '../../../src/graph/builder.js';
import type { DataTypeName } from '../../../src/onnx/dtype.js';
import { collect } from '../../../src/onnx/edit.js';
import type { Dim } from '../../../src/onnx/model.js';
import { openSession } from '../../../src/runtime/session.js';
import {
  type Feeds,
  type TensorValue,
  tensorFromNumbers,
  tensorToFloat64,
} from '../../../src/runtime/tensor-value.js';
import { addLoss, type LossName, type LossOptions } from '../../../src/training/losses/index.js';

export interface LossRun {
  readonly loss: number;
  readonly weight: number;
  readonly gradient: Float64Array;
  readonly gradientDims: readonly number[];
}

export interface LossCase extends LossOptions {
  readonly opset?: number;
  readonly dtype?: DataTypeName;
  /** The output's shape as it is declared; by default the logits' own. */
  readonly shape?: readonly Dim[] | null;
}

/** Runs the loss on logits and its other inputs, in float64 unless the case says otherwise. */
export async function runLoss(
  name: LossName,
  logits: Numbers,
  others: Readonly<Record<string, Numbers>>,
  { opset = 17, dtype = 'float64', shape = logits.dims, ...options }: LossCase = {},
): Promise<LossRun> {
  const graph = new GraphBuilder([{ domain: '', version: opset }]);
  graph.reserve('z');
  graph.inputs.push({ name: 'z', dtype, shape });
  const { loss, weight, inputs, seeds } = addLoss(
    graph,
    name,
    { name: 'z', dtype, shape },
    options,
  );
  const gradient = seeds[0]!.gradient;
  for (const output of new Set([loss, weight, gradient])) {
    graph.outputs.push({ name: output, dtype: undefined, shape: null });
  }
  const feeds = new Map([['z', tensorOf(dtype, logits)]]);
  for (const input of inputs) feeds.set(input.name, tensorOf(input.dtype!, others[input.name]!));
  const found = await runGraph(graph, feeds);
  const values = (key: string) => tensorToFloat64(found.get(key)!).slice();
  return {
    loss: values(loss)[0]!,
    weight: values(weight)[0]!,
    gradient: values(gradient),
    gradientDims: found.get(gradient)!.dims,
  };
}

export async function runGraph(graph: GraphBuilder, feeds: Feeds) {
  const session = await openSession(await collect(graph.modelPieces()));
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** Numbers in a shape. */
export interface Numbers {
  readonly dims: readonly number[];
  readonly values: readonly number[];
}

/** Nested arrays as numbers in a shape. */
export function array(nested: unknown): Numbers {
  if (!Array.isArray(nested)) return { dims: [], values: [nested as number] };
  const parts = nested.map(array);
  return {
    dims: [nested.length, ...(parts[0]?.dims ?? [])],
    values: parts.flatMap(({ values }) => values),
  };
}

function tensorOf(dtype: DataTypeName, { dims, values }: Numbers): TensorValue {
  return tensorFromNumbers(dtype, dims, Float64Array.from(values));
}

/** Standard normal numbers times `scale`, the same in every run. */
export function normals(dims: readonly number[], seed: number, scale = 1): Numbers {
  let state = seed >>> 0;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = () =>
    Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random()) * scale;
  const values = Array.from({ length: dims.reduce((a, b) => a * b, 1) }, normal);
  return { dims, values };
}

/** A loss in plain float64 JavaScript. */
export type Reference = (logits: readonly number[]) => number;

/** Compares the value to the reference, and the gradient to the reference's central differences. */
export function expectLike(found: LossRun, { dims, values }: Numbers, reference: Reference): void {
  expect(found.loss).toBeCloseTo(reference(values), 10);
  expect(found.gradientDims).toEqual(dims);
  const step = 1e-5;
  const moved = (at: number, by: number) =>
    reference(values.map((value, i) => (i === at ? value + by : value)));
  const expected = values.map((_, at) => (moved(at, step) - moved(at, -step)) / (2 * step));
  expectNumbers(found.gradient, expected, 1e-8);
}

/** Compares value and gradient to recorded ones. */
export function expectRecorded(
  found: LossRun,
  loss: number,
  gradient: readonly number[],
  tolerance = 1e-9,
): void {
  expectNumbers([found.loss], [loss], tolerance);
  expectNumbers(found.gradient, gradient, tolerance);
}

export function expectNumbers(
  found: ArrayLike<number>,
  expected: readonly number[],
  tolerance: number,
): void {
  expect(found.length).toBe(expected.length);
  expected.forEach((value, i) => {
    expect(Math.abs(found[i]! - value), `${found[i]} for ${value} at ${i}`).toBeLessThan(tolerance);
  });
}

/** Rows of the last axis. */
export function rowsOf(values: readonly number[], width: number): number[][] {
  return Array.from({ length: values.length / width }, (_, i) =>
    values.slice(i * width, (i + 1) * width),
  );
}

export function logSoftmax(row: readonly number[]): number[] {
  const most = Math.max(...row);
  const sum = row.reduce((total, value) => total + Math.exp(value - most), 0);
  return row.map((value) => value - most - Math.log(sum));
}
