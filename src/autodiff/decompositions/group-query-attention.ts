/**
 * com.microsoft GroupQueryAttention: rotary position embedding, a cache, and attention in which several
 * heads of Q share one of K and V. It is computed as ONNX Runtime's kernel does, also where that differs
 * from the operator's description.
 */
import type { Dim } from '../../onnx/model.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { Decomposition, NodeContext } from '../rule.js';
import { after, attend, joinHeads, refuseIf, splitHeads, splitLast } from './heads.js';

/** The positions of this run's tokens in their samples. */
interface Places {
  /** Bool [1]: no token came before this run, whatever the cache holds. */
  readonly isPrompt: string;
  /** Number of tokens before, for each sample: int64 [B, 1]. */
  readonly before: string;
}

export const groupQueryAttention: Decomposition = (context) => {
  const { x, c, int, float } = context;
  const [, , , pastKey, pastValue] = x as string[];
  const [cosines, sines, positions, bias, sink, , , queryNorm, keyNorm] = x.slice(7) as string[];
  refuseUses(context);
  const parts = projections(context);
  const normed = [queryNorm, keyNorm].map((gain, i) => normalized(context, parts[i]!, gain));
  const places = placesOf(context);
  const turn = (value: string) =>
    int('do_rotary', 0) === 1
      ? rotated(context, value, [cosines!, sines!], rotaryPlaces(c, places, value, positions))
      : value;
  const [q, k] = normed.map(turn) as [string, string];
  const heads = { q, k: after(c, pastKey, k), v: after(c, pastValue, parts[2]), past: pastKey };
  const result = attend(c, heads, {
    scale: float('scale', 0) || undefined,
    biases: bias ? [biasOfKeys(c, bias, places, heads)] : [],
    masks: [maskOf(context, places, heads)],
    softcap: float('softcap', 0),
    sink: sink || (int('smooth_softmax', 0) === 1 ? c.number(q, 0) : undefined),
  });
  return [joinHeads(c, result), heads.k, heads.v];
};

function refuseUses({ x, int, text }: NodeContext): void {
  refuseIf(int('local_window_size', -1) === 0, 'a window of 0 leaves nothing to attend to');
  const quantized = ['k_quant_type', 'v_quant_type'].filter(
    (name) => text(name, 'NONE') !== 'NONE',
  );
  refuseIf(quantized.length > 0, `a quantized cache (${quantized.join(', ')}) is not supported`);
  refuseIf(Boolean(x[16]), 'query_seqlens is not supported');
}

/** Q [B, H, S, D], K and V [B, G, S, D], which one input may hold side by side. */
function projections({ x, c, int }: NodeContext): [string, string, string] {
  const [query, key, value] = x as string[];
  const counts = [int('num_heads', 1), int('kv_num_heads', 1), int('kv_num_heads', 1)];
  const parts = key && value ? [query!, key, value] : unpacked(c, query!, counts);
  return parts.map((part, i) => splitHeads(c, part, counts[i]!)) as [string, string, string];
}

function unpacked(c: OpBuilder, packed: string, counts: readonly number[]): string[] {
  const width = c.dims(packed)[2];
  if (typeof width !== 'number') throw new Refusal(`the width of ${packed} is not static`);
  const size = width / counts.reduce((a, b) => a + b, 0);
  return splitLast(
    c,
    packed,
    counts.map((count) => count * size),
  );
}

/** Each head by its root mean square, where the operator has a gain for it. */
function normalized({ c, float }: NodeContext, heads: string, gain: string | undefined): string {
  if (!gain) return heads;
  const epsilon = float('qk_norm_epsilon', 1e-6);
  const attributes = { axis: { int: -1 }, epsilon: { float: epsilon }, stash_type: { int: 1 } };
  return c.op('SimplifiedLayerNormalization', [heads, gain], c.type(heads), attributes);
}

/**
 * A run whose tokens are all that there are begins the sample. Else the tokens are at the end, and the
 * lengths say for each sample where that is.
 */
function placesOf({ x, c }: NodeContext): Places {
  const [lengths, total] = [x[5]!, x[6]!].map((name) => c.cast(name, 'int64')) as [string, string];
  const rows = c.sizesOf(x[0]!, [1]);
  const isPrompt = c.compare('Equal', c.reshape(total, c.integers([1]), [1]), rows);
  const columns = c.reshape(lengths, c.integers([-1, 1]), [c.dims(x[0]!)[0]!, 1]);
  const before = c.sub(c.shift(columns, 1), rows);
  return { isPrompt, before: c.where(isPrompt, c.scalar('int64', 0), before) };
}

/** The place of each token: [B, S]. With a prompt, the first of given positions is where all samples begin. */
function rotaryPlaces(c: OpBuilder, places: Places, heads: string, given?: string): string {
  const rows = c.positions(heads, 2);
  if (!given) return c.add(places.before, rows);
  const first = c.stretch(c.stretch(given, 0, 0, 1), 1, 0, 1);
  return c.where(places.isPrompt, c.add(first, rows), given);
}

/** Pairs of numbers of a head, as many as the tables have columns, rotated by their angles. */
function rotated(
  { node, c, int }: NodeContext,
  heads: string,
  [cosines, sines]: readonly [string, string],
  places: string,
): string {
  const [, count, , size] = c.dims(heads);
  const half = c.dims(cosines)[1];
  const isPartial = typeof half !== 'number' || typeof size !== 'number' || 2 * half !== size;
  refuseIf(isPartial && typeof half !== 'number', `the width of ${cosines} is not static`);
  const attributes = {
    interleaved: { int: int('rotary_interleaved', 0) },
    ...(isPartial
      ? { num_heads: { int: count as number }, rotary_embedding_dim: { int: 2 * Number(half) } }
      : {}),
  };
  const rotary = { opType: 'RotaryEmbedding', domain: node.domain!, attributes };
  return c.again(rotary, [heads, places, cosines, sines], c.type(heads));
}

/** The keys that each row attends to: bool [B, 1, S, T]. */
function maskOf(
  { x, c, int }: NodeContext,
  { before }: Places,
  { q, k, past }: { q: string; k: string; past: string | undefined },
): string {
  const columns = c.unsqueeze(columnPlaces(c, before, k, past), [1]);
  if (int('causal', 1) === 0) {
    const last = c.reshape(c.cast(x[5]!, 'int64'), c.integers([-1, 1, 1]), [c.dims(q)[0]!, 1, 1]);
    return c.unsqueeze(c.not(c.compare('Greater', columns, last)), [1]);
  }
  const rows = c.unsqueeze(c.add(before, c.positions(q, 2)), [2]);
  const isBefore = c.not(c.compare('Greater', columns, rows));
  const window = int('local_window_size', -1);
  const isNear = c.compare('Less', c.sub(rows, columns), c.scalar('int64', window));
  return c.unsqueeze(window > 0 ? both(c, isBefore, isNear) : isBefore, [1]);
}

/** Behind every row. */
const NOWHERE = 2 ** 40;

/**
 * The place of each key in its sample: [B, T]. A cache may have room for more tokens than came before;
 * those of this run follow the ones that did.
 */
function columnPlaces(
  c: OpBuilder,
  before: string,
  keys: string,
  past: string | undefined,
): string {
  const columns = c.unsqueeze(c.positions(keys, 2), [0]);
  if (!past) return columns;
  const room = c.sizesOf(past, [2]);
  const isOld = c.compare('Less', columns, room);
  const old = c.where(c.compare('Less', columns, before), columns, c.scalar('int64', NOWHERE));
  return c.where(isOld, old, c.add(c.sub(columns, room), before));
}

/**
 * The bias [1 or B, 1 or H, S, total] by the place that each key has in its sample: the tokens of this run
 * follow those that came before, wherever the cache ends.
 */
function biasOfKeys(
  c: OpBuilder,
  bias: string,
  { before }: Places,
  { q, k, past }: { q: string; k: string; past: string | undefined },
): string {
  if (!past || c.dims(past)[2] === 0) return bias;
  const places = columnPlaces(c, before, k, past);
  const isInside = c.compare('Less', places, c.sizesOf(bias, [3]));
  const columns = c.unsqueeze(c.where(isInside, places, c.scalar('int64', 0)), [1, 2]);
  const batch = c.sizesOf(q, [0]);
  const one = c.integers([1]);
  const [, heads, rows, total] = c.dims(bias) as [Dim, Dim, Dim, Dim];
  const samples = c.dims(q)[0]!;
  const each = c.op('Expand', [bias, c.concat([batch, one, one, one], 0)], {
    dtype: c.type(bias).dtype,
    shape: [samples, heads, rows, total],
  });
  const keys = c.dims(k)[2]!;
  const index = c.op('Expand', [columns, c.concat([batch, c.sizesOf(bias, [1, 2]), one], 0)], {
    dtype: 'int64',
    shape: [samples, heads, rows, keys],
  });
  const type = { dtype: c.type(bias).dtype, shape: [samples, heads, rows, keys] };
  return c.op('GatherElements', [each, index], type, { axis: { int: 3 } });
}

function both(c: OpBuilder, a: string, b: string): string {
  return c.op('And', [a, b], c.type(a));
}
