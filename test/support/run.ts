/** Runs models in onnxruntime-node and compares what comes out, in float64. */
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { expect } from 'vitest';
import { type DataTypeName, fromFloat64, isConvertible, toFloat64 } from '../../src/onnx/dtype.js';

export type Optimization = 'disabled' | 'basic' | 'extended' | 'all';

export interface Values {
  readonly dims: readonly number[];
  readonly data: Float64Array;
}

export type Outputs = Readonly<Record<string, Values>>;

/** A tensor to feed. */
export function feed(
  dims: readonly number[],
  values: ArrayLike<number>,
  dtype: DataTypeName = 'float32',
): Tensor {
  if (dtype === 'int64') {
    return new Tensor('int64', BigInt64Array.from(Array.from(values), BigInt), [...dims]);
  }
  if (dtype === 'bool') return new Tensor('bool', Array.from(values, Boolean), [...dims]);
  if (dtype === 'float64') return new Tensor('float64', Float64Array.from(values), [...dims]);
  if (dtype === 'float32') return new Tensor('float32', Float32Array.from(values), [...dims]);
  if (dtype !== 'float16') throw new Error(`no test feeds of ${dtype}`);
  const bytes = fromFloat64('float16', Float64Array.from(values));
  return new Tensor('float16', new Uint16Array(bytes.buffer), [...dims]);
}

/** All outputs of a model file or model in memory. */
export async function run(
  model: string | Uint8Array,
  feeds: Readonly<Record<string, Tensor>>,
  optimization: Optimization = 'disabled',
): Promise<Outputs> {
  const options = {
    graphOptimizationLevel: optimization,
    logSeverityLevel: 4,
    intraOpNumThreads: 1,
  } as const;
  const session =
    typeof model === 'string'
      ? await InferenceSession.create(model, options)
      : await InferenceSession.create(model, options);
  try {
    const wanted = Object.entries(feeds).filter(([name]) => session.inputNames.includes(name));
    const outputs = await session.run(Object.fromEntries(wanted));
    return Object.fromEntries(Object.entries(outputs).map(([name, t]) => [name, valuesOf(t)]));
  } finally {
    await session.release();
  }
}

/** The numbers of a tensor, which may be in memory of its session. */
export function valuesOf({ type, dims, data }: Tensor): Values {
  const array = data as Float32Array | BigInt64Array;
  if (isConvertible(type as DataTypeName)) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    // A session may reuse the memory of its outputs.
    const numbers = toFloat64(type as DataTypeName, bytes.slice(), array.length);
    return { dims, data: numbers };
  }
  return { dims, data: Float64Array.from(array as Iterable<number | bigint>, Number) };
}

/** The largest |a - b|; NaN where one is NaN, Infinity where the lengths differ. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    const difference = Math.abs(a[i]! - b[i]!);
    if (!(difference <= most)) most = difference;
    if (Number.isNaN(most)) return most;
  }
  return most;
}

export function maxAbs(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

/** max|Δ| = 0 over all outputs, which are numbers. */
export function expectSame(actual: Outputs, expected: Outputs): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [name, { dims, data }] of Object.entries(expected)) {
    expect(actual[name]!.dims).toEqual(dims);
    expect(data.every(Number.isFinite), `${name} is finite`).toBe(true);
    expect(maxDifference(actual[name]!.data, data), name).toBe(0);
  }
}

/** Every output within `tolerance` of the largest expected number (of 1 where that is smaller). */
export function expectClose(actual: Outputs, expected: Outputs, tolerance: number): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [name, { dims, data }] of Object.entries(expected)) {
    expect(actual[name]!.dims).toEqual(dims);
    const limit = tolerance * Math.max(1, maxAbs(data));
    expect(maxDifference(actual[name]!.data, data), name).toBeLessThanOrEqual(limit);
  }
}
