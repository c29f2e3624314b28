/**
 * The attention operators: softmax(scale · Q·Kᵀ + bias) · V for each head. What differs is how they take
 * Q, K, V and the masks.
 */
import type { DataTypeName } from '../../onnx/dtype.js';
import type { Calculus } from '../calculus.js';
import { Refusal } from '../refusal.js';
import type { NodeContext } from '../rule.js';
import type { Decomposition } from './index.js';

/** Heads side by side: q [B, H, S, D], k [B, H or fewer, T, D], v [B, as k, T, E]. */
interface Heads {
  readonly q: string;
  readonly k: string;
  readonly v: string;
}

interface Options {
  /** Default 1/√D. */
  readonly scale: number | undefined;
  /** Added to the scores, in this order. */
  readonly biases: readonly string[];
  /** Where to attend: bool. */
  readonly masks: readonly string[];
  /** c · tanh(scores / c) in the place of scores; 0 for none. */
  readonly softcap: number;
}

/** @returns [B, H, S, E] */
function attend(c: Calculus, { q, k, v }: Heads, options: Options): string {
  const { biases, masks, softcap } = options;
  const queries = c.scale(q, options.scale ?? 1 / Math.sqrt(headSize(c, q)));
  const groups = groupsOf(c, q, k);
  const grouped = (value: string) => (groups ? regroup(c, value, groups) : value);
  const shared = (value: string) => (groups ? c.unsqueeze(value, [2]) : value);
  const merged = (value: string) => (groups ? mergeGroups(c, value) : value);
  let scores = merged(c.matMul(grouped(queries), c.swapLast(shared(k))));
  if (softcap !== 0) scores = c.scale(c.unary('Tanh', c.scale(scores, 1 / softcap)), softcap);
  for (const bias of biases) scores = c.add(scores, bias);
  for (const mask of masks) scores = c.where(mask, scores, lowest(c, scores));
  const weights = c.unary('Softmax', scores, { axis: { int: -1 } });
  return merged(c.matMul(grouped(weights), shared(v)));
}

/** Not -∞: a row without a place to attend to would be NaN. */
function lowest(c: Calculus, like: string): string {
  const least: Partial<Record<DataTypeName, number>> = { float16: -65504, float64: -1e300 };
  return c.number(like, least[c.type(like).dtype] ?? -3.4028234663852886e38);
}

function headSize(c: Calculus, value: string): number {
  const size = c.dims(value).at(-1);
  if (typeof size === 'number') return size;
  throw new Refusal(`the size of its heads (${value}) is not static`);
}

/** [heads of k, queries for each of them], where several share one. */
function groupsOf(c: Calculus, q: string, k: string): [number, number] | undefined {
  const [queries, keys] = [c.dims(q)[1], c.dims(k)[1]];
  if (typeof queries !== 'number' || typeof keys !== 'number') {
    throw new Refusal(`the number of its heads (${q}, ${k}) is not static`);
  }
  return queries === keys ? undefined : [keys, queries / keys];
}

/** [B, H, S, D] as [B, G, H/G, S, D] */
function regroup(c: Calculus, value: string, [keys, each]: [number, number]): string {
  const [batch, , rows, size] = c.dims(value) as [number, number, number, number];
  const parts = [c.sizesOf(value, [0]), c.integers([keys, each]), c.sizesOf(value, [2, 3])];
  return c.reshape(value, c.concat(parts, 0), [batch, keys, each, rows, size]);
}

/** [B, G, H/G, S, T] as [B, H, S, T] */
function mergeGroups(c: Calculus, value: string): string {
  const [batch, keys, each, rows, size] = c.dims(value) as [number, number, number, number, number];
  const parts = [c.sizesOf(value, [0]), c.integers([keys * each]), c.sizesOf(value, [3, 4])];
  return c.reshape(value, c.concat(parts, 0), [batch, keys * each, rows, size]);
}

/** [B, S, H·D] as [B, H, S, D] */
function splitHeads(c: Calculus, value: string, count: number): string {
  const [batch, rows, width] = c.dims(value) as [number, number, number | null];
  const size = typeof width === 'number' ? width / count : null;
  const heads = c.reshape(value, c.integers([0, 0, count, -1]), [batch, rows, count, size]);
  return c.transpose(heads, [0, 2, 1, 3]);
}

/** [B, H, S, D] as [B, S, H·D] */
function joinHeads(c: Calculus, value: string): string {
  const [batch, count, rows, size] = c.dims(value) as [number, number, number, number | null];
  const width = typeof size === 'number' ? count * size : null;
  const rowsFirst = c.transpose(value, [0, 2, 1, 3]);
  return c.reshape(rowsFirst, c.integers([0, 0, -1]), [batch, rows, width]);
}

/** Row i attends to the columns up to i, counted from the last ones of both: [S, T]. */
function causalMask(c: Calculus, { q, k }: Heads): string {
  const [rows, columns] = [c.positions(q, 2), c.positions(k, 2)];
  const type = { dtype: 'int64', shape: [1] } as const;
  const before = c.op('Sub', [c.sizesOf(k, [2]), c.sizesOf(q, [2])], type);
  const last = c.unsqueeze(c.add(rows, before), [1]);
  return c.not(c.compare('Greater', columns, last));
}

/** What com.microsoft's two attention operators say of scale and masks in the same way. */
function microsoftMasks(
  { c, int, float }: NodeContext,
  heads: Heads,
  mask: string | undefined,
  attentionBias: string | undefined,
): Options {
  const filter = float('mask_filter_value', -10000);
  return {
    scale: float('scale', 0) || undefined,
    biases: [...(mask ? [maskBias(c, mask, heads, filter)] : []), ...given(attentionBias)],
    masks: int('unidirectional', 0) === 0 ? [] : [causalMask(c, heads)],
    softcap: 0,
  };
}

/** com.microsoft Attention: X [B, S, I] with packed weights [I, D + D + E]. */
export const attention: Decomposition = (context) => {
  const { x, c, int, ints } = context;
  const [input, weights, bias, mask, past, attentionBias, pastLength] = x as string[];
  refuseIf(Boolean(pastLength), 'past_sequence_length is not supported');
  refuseIf(int('do_rotary', 0) !== 0, 'do_rotary is not supported');
  const product = c.matMul(input!, weights!);
  const packed = bias ? c.add(product, bias) : product;
  const third = (packedSize(c, weights!) ?? 0) / 3;
  const sizes = ints('qkv_hidden_sizes') ?? [third, third, third];
  const [q, k, v] = splitLast(c, packed, sizes).map((part) =>
    splitHeads(c, part, int('num_heads', 1)),
  ) as [string, string, string];
  const before = past ? [0, 1].map((i) => pick(c, past, i)) : ['', ''];
  const heads = { q, k: after(c, before[0], k), v: after(c, before[1], v) };
  const result = attend(c, heads, microsoftMasks(context, heads, mask, attentionBias));
  const present = () =>
    c.concat(
      [heads.k, heads.v].map((part) => c.unsqueeze(part, [0])),
      0,
    );
  return [joinHeads(c, result), context.y[1] ? present() : undefined];
};

/** com.microsoft MultiHeadAttention: Q, K and V [B, S, H·D], K and V also [B, H, T, D]. */
export const multiHeadAttention: Decomposition = (context) => {
  const { x, c, int } = context;
  const [query, key, value, bias, mask, attentionBias, pastKey, pastValue, ...more] = x as string[];
  refuseIf(!key || !value, 'packed QKV is not supported');
  refuseIf(more.some(Boolean), 'past_sequence_length and cache_indirection are not supported');
  const parts = [query!, key!, value!];
  const biases = bias ? splitLast(c, bias, biasSizes(c, parts, bias)) : [];
  const [q, k, v] = parts.map((part, i) => {
    if (c.rank(part) === 4) return part;
    return splitHeads(c, biases[i] ? c.add(part, biases[i]) : part, int('num_heads', 1));
  }) as [string, string, string];
  const heads = { q, k: after(c, pastKey, k), v: after(c, pastValue, v) };
  const result = attend(c, heads, microsoftMasks(context, heads, mask, attentionBias));
  return [joinHeads(c, result), heads.k, heads.v];
};

/** Attention of opset 23: Q, K and V [B, H, S, D] or [B, S, H·D], heads of K and V may be fewer. */
export const scaledDotProductAttention: Decomposition = (context) => {
  const { x, c, int, float } = context;
  const [query, key, value, mask, pastKey, pastValue, ...more] = x as string[];
  refuseIf(more.some(Boolean), 'nonpad_kv_seqlen is not supported');
  const counts = ['q', 'kv', 'kv'].map((name) => int(`${name}_num_heads`, 0));
  const isJoined = c.rank(query!) === 3;
  const [q, k, v] = [query!, key!, value!].map((part, i) =>
    isJoined ? splitHeads(c, part, counts[i]!) : part,
  ) as [string, string, string];
  const heads = { q, k: after(c, pastKey, k), v: after(c, pastValue, v) };
  const isBoolean = mask && c.type(mask).dtype === 'bool';
  const result = attend(c, heads, {
    scale: float('scale', 0) || undefined,
    biases: isBoolean ? [] : given(mask),
    masks: [
      ...(isBoolean ? [mask] : []),
      ...(int('is_causal', 0) === 0 ? [] : [causalMask(c, heads)]),
    ],
    softcap: float('softcap', 0),
  });
  return [isJoined ? joinHeads(c, result) : result, heads.k, heads.v];
};

/**
 * What the masks of com.microsoft operators add to the scores: [B, T] and [B, S, T] of 0 and 1; [B] with
 * the number of places that count; [2·B] with where they end and where they start.
 */
function maskBias(c: Calculus, mask: string, heads: Heads, filter: number): string {
  const counts = c.where(
    isCounted(c, mask, heads),
    c.number(heads.q, 0),
    c.number(heads.q, filter),
  );
  const axes = c.rank(mask) === 3 ? [1] : [1, 2];
  return c.unsqueeze(counts, axes);
}

function isCounted(c: Calculus, mask: string, { q, k }: Heads): string {
  if (c.rank(mask) === 2 || c.rank(mask) === 3) {
    return c.compare('Greater', mask, c.number(mask, 0));
  }
  const [length, batch] = [c.dims(mask)[0]!, c.dims(q)[0]!];
  const places = c.positions(k, 2);
  const column = (vector: string) => c.unsqueeze(c.cast(vector, 'int64'), [1]);
  if (c.rank(mask) === 1 && length === batch) return c.compare('Less', places, column(mask));
  if (c.rank(mask) === 1 && typeof batch === 'number' && length === 2 * batch) {
    const [end, start] = [c.stretch(mask, 0, 0, batch), c.stretch(mask, 0, batch, 2 * batch)];
    const early = c.compare('Less', places, column(end));
    return c.op('And', [early, c.not(c.compare('Less', places, column(start)))], c.type(early));
  }
  throw new Refusal(`a mask of shape [${c.dims(mask).join(', ')}] is not supported`);
}

function packedSize(c: Calculus, weights: string): number | undefined {
  const size = c.dims(weights)[1];
  return typeof size === 'number' ? size : undefined;
}

function biasSizes(c: Calculus, [q, k, v]: readonly string[], bias: string): number[] {
  const widths = [q!, k!, v!].map((part) => (c.rank(part) === 3 ? c.dims(part)[2] : undefined));
  const total = c.dims(bias)[0];
  const [first = 0, second = first] = widths as (number | undefined)[];
  if (typeof first === 'number' && typeof total === 'number') {
    return [first, second as number, total - first - (second as number)];
  }
  throw new Refusal(`the size of its bias ${bias} is not static`);
}

/** Stretches of the last axis. */
function splitLast(c: Calculus, value: string, sizes: readonly number[]): string[] {
  return sizes.map((size, i) => {
    const start = sizes.slice(0, i).reduce((a, b) => a + b, 0);
    return c.stretch(value, c.rank(value) - 1, start, start + size);
  });
}

/** One of the first axis. */
function pick(c: Calculus, value: string, index: number): string {
  const { dtype, shape } = c.type(value);
  const type = { dtype, shape: shape?.slice(1) ?? null };
  return c.op('Gather', [value, c.scalar('int64', index)], type, { axis: { int: 0 } });
}

/** Behind what a cache holds. */
function after(c: Calculus, past: string | undefined, value: string): string {
  return past ? c.concat([past, value], 2) : value;
}

function given(value: string | undefined): string[] {
  return value ? [value] : [];
}

function refuseIf(condition: boolean, reason: string): void {
  if (condition) throw new Refusal(reason);
}
