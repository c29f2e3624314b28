/**
 * The parts of all attention operators: softmax(scale · Q·Kᵀ + bias) · V for each head, and the layouts that
 * they take Q, K and V from.
 */
import type { DataTypeName } from '../../onnx/dtype.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';

/** Heads side by side: q [B, H, S, D], k [B, H or fewer, T, D], v [B, as k, T, E]. */
export interface Heads {
  readonly q: string;
  readonly k: string;
  readonly v: string;
  /** The keys of a cache [B, heads of k, P, D] that come before `k`. */
  readonly past: string | undefined;
}

export interface AttentionOptions {
  /** Default 1/√D. */
  readonly scale: number | undefined;
  /** Added to the scores, in this order. */
  readonly biases: readonly string[];
  /** The places to attend to: bool. */
  readonly masks: readonly string[];
  /** c · tanh(scores / c) in the place of scores; 0 for none. */
  readonly softcap: number;
  /** Bool [.., S, 1]: the rows that attend to something. The others give 0. */
  readonly openRows?: string | undefined;
  /** A score [H] or a scalar that takes part in each softmax and has no value. */
  readonly sink?: string | undefined;
}

/** @returns [B, H, S, E] */
export function attend(c: OpBuilder, { q, k, v }: Heads, options: AttentionOptions): string {
  const { biases, masks, softcap, openRows } = options;
  const queries = c.scale(q, options.scale ?? 1 / Math.sqrt(headSize(c, q)));
  const groups = groupsOf(c, q, k);
  const grouped = (value: string) => (groups ? regroup(c, value, groups) : value);
  const shared = (value: string) => (groups ? c.unsqueeze(value, [2]) : value);
  const merged = (value: string) => (groups ? mergeGroups(c, value) : value);
  let scores = merged(c.matMul(grouped(queries), c.swapLast(shared(k))));
  if (softcap !== 0) scores = c.scale(c.unary('Tanh', c.scale(scores, 1 / softcap)), softcap);
  for (const bias of biases) scores = c.add(scores, bias);
  for (const mask of masks) scores = c.where(mask, scores, lowest(c, scores));
  const weights = options.sink ? softmaxBeside(c, scores, options.sink) : softmax(c, scores);
  const result = merged(c.matMul(grouped(weights), shared(v)));
  return openRows ? c.masked(openRows, result) : result;
}

function softmax(c: OpBuilder, scores: string): string {
  return c.unary('Softmax', scores, { axis: { int: -1 } });
}

/** The softmax of the scores [B, H, S, T] and one more column, without that column. */
function softmaxBeside(c: OpBuilder, scores: string, sink: string): string {
  const column = c.rank(sink) === 0 ? sink : c.unsqueeze(sink, [1, 2]);
  const [batch, heads, rows] = c.dims(scores);
  const sizes = c.concat([c.sizesOf(scores, [0, 1, 2]), c.integers([1])], 0);
  const type = { dtype: c.type(scores).dtype, shape: [batch!, heads!, rows!, 1] };
  const beside = c.op('Expand', [column, sizes], type);
  const weights = softmax(c, c.concat([scores, beside], 3));
  return c.op('Slice', [weights, ...[0, -1, 3].map((at) => c.integers([at]))], c.type(scores));
}

/** Not -∞: a row without a place to attend to would be NaN. */
export function lowest(c: OpBuilder, like: string): string {
  const least: Partial<Record<DataTypeName, number>> = { float16: -65504, float64: -1e300 };
  return c.number(like, least[c.type(like).dtype] ?? -3.4028234663852886e38);
}

function headSize(c: OpBuilder, value: string): number {
  const size = c.dims(value).at(-1);
  if (typeof size === 'number') return size;
  throw new Refusal(`the size of its heads (${value}) is not static`);
}

/** [heads of k, queries for each of them], where several share one. */
function groupsOf(c: OpBuilder, q: string, k: string): [number, number] | undefined {
  const [queries, keys] = [c.dims(q)[1], c.dims(k)[1]];
  if (typeof queries !== 'number' || typeof keys !== 'number') {
    throw new Refusal(`the number of its heads (${q}, ${k}) is not static`);
  }
  return queries === keys ? undefined : [keys, queries / keys];
}

/** [B, H, S, D] as [B, G, H/G, S, D] */
function regroup(c: OpBuilder, value: string, [keys, each]: [number, number]): string {
  const [batch, , rows, size] = c.dims(value) as [number, number, number, number];
  const parts = [c.sizesOf(value, [0]), c.integers([keys, each]), c.sizesOf(value, [2, 3])];
  return c.reshape(value, c.concat(parts, 0), [batch, keys, each, rows, size]);
}

/** [B, G, H/G, S, T] as [B, H, S, T] */
function mergeGroups(c: OpBuilder, value: string): string {
  const [batch, keys, each, rows, size] = c.dims(value) as [number, number, number, number, number];
  const parts = [c.sizesOf(value, [0]), c.integers([keys * each]), c.sizesOf(value, [3, 4])];
  return c.reshape(value, c.concat(parts, 0), [batch, keys * each, rows, size]);
}

/** [B, S, H·D] as [B, H, S, D] */
export function splitHeads(c: OpBuilder, value: string, count: number): string {
  const [batch, rows, width] = c.dims(value) as [number, number, number | null];
  const size = typeof width === 'number' ? width / count : null;
  const shape =
    size === null
      ? c.integers([0, 0, count, -1])
      : c.concat([c.sizesOf(value, [0, 1]), c.integers([count, size])], 0);
  const heads = c.reshape(value, shape, [batch, rows, count, size]);
  return c.transpose(heads, [0, 2, 1, 3]);
}

/** [B, H, S, D] as [B, S, H·D] */
export function joinHeads(c: OpBuilder, value: string): string {
  const [batch, count, rows, size] = c.dims(value) as [number, number, number, number | null];
  const width = typeof size === 'number' ? count * size : null;
  const rowsFirst = c.transpose(value, [0, 2, 1, 3]);
  const shape =
    width === null
      ? c.integers([0, 0, -1])
      : c.concat([c.sizesOf(rowsFirst, [0, 1]), c.integers([width])], 0);
  return c.reshape(rowsFirst, shape, [batch, rows, width]);
}

/** Stretches of the last axis. */
export function splitLast(c: OpBuilder, value: string, sizes: readonly number[]): string[] {
  return sizes.map((size, i) => {
    const start = sizes.slice(0, i).reduce((a, b) => a + b, 0);
    return c.stretch(value, c.rank(value) - 1, start, start + size);
  });
}

/** Behind what a cache holds. */
export function after(c: OpBuilder, past: string | undefined, value: string): string {
  return past ? c.concat([past, value], 2) : value;
}

export function refuseIf(condition: boolean, reason: string): void {
  if (condition) throw new Refusal(reason);
}
