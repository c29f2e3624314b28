/** Attention of opset 23 and of com.microsoft: they differ in how they take Q, K, V and the masks. */
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { Decomposition, NodeContext } from '../rule.js';
import { broadcast } from '../shapes.js';
import {
  type AttentionOptions,
  after,
  attend,
  type Heads,
  joinHeads,
  lowest,
  refuseIf,
  splitHeads,
  splitLast,
} from './heads.js';

/**
 * Row i attends to the whole cache and to the columns up to i after it: [S, T]. Where they differ in
 * number, as where the keys are another sequence, rows and columns align at the first.
 */
function causalMask(c: OpBuilder, heads: Heads): string {
  return upTo(c, lastColumns(c, heads), heads);
}

/** The last column that each row attends to: [S]. */
function lastColumns(c: OpBuilder, { q, past }: Heads): string {
  const rows = c.positions(q, 2);
  return past ? c.add(rows, c.sizesOf(past, [2])) : rows;
}

/** Whether a column is not after the last one: [.., S, T] from [.., S]. */
function upTo(c: OpBuilder, last: string, { k }: Heads): string {
  return c.not(c.compare('Greater', c.positions(k, 2), c.unsqueeze(last, [c.rank(last)])));
}

/**
 * The causal mask of com.microsoft operators. ONNX Runtime's kernel leaves the last row out, which is
 * the same where rows and columns are as many: with more keys it attends to all of them.
 */
function unidirectionalMask(c: OpBuilder, heads: Heads): string {
  const { q, k } = heads;
  const [rows, columns] = [c.dims(q)[2], c.dims(k)[2]];
  const last = lastColumns(c, heads);
  if (rows === columns && rows !== null) return upTo(c, last, heads);
  const isBefore = c.compare('Less', c.positions(q, 2), c.shift(c.sizesOf(q, [2]), -1));
  return upTo(c, c.where(isBefore, last, c.sizesOf(k, [2])), heads);
}

/** The attributes of scale and masks that com.microsoft's two attention operators share. */
function microsoftMasks(
  context: NodeContext,
  heads: Heads,
  mask: string | undefined,
  attentionBias: string | undefined,
): AttentionOptions {
  const { c, int, float } = context;
  const filter = float('mask_filter_value', -10000);
  return {
    scale: float('scale', 0) || undefined,
    biases: [...(mask ? [maskBias(context, mask, heads, filter)] : []), ...given(attentionBias)],
    masks: int('unidirectional', 0) === 0 ? [] : [unidirectionalMask(c, heads)],
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
  const heads = { q, k: after(c, before[0], k), v: after(c, before[1], v), past: before[0] };
  const result = attend(c, heads, microsoftMasks(context, heads, mask, attentionBias));
  const present = () =>
    c.concat(
      [heads.k, heads.v].map((part) => c.unsqueeze(part, [0])),
      0,
    );
  return [joinHeads(c, result), context.y[1] ? present() : undefined];
};

/** The inputs of com.microsoft operators that take Q, K and V; `''` for one that is left out. */
interface Projected {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly bias: string | undefined;
  readonly mask: string | undefined;
  readonly attentionBias: string | undefined;
  readonly pastKey: string | undefined;
  readonly pastValue: string | undefined;
}

/** Q, K and V [B, S, H·D], K and V also [B, H, T, D], and what the operators give of them. */
function attendProjected(context: NodeContext, given: Projected): string[] {
  const { c, int } = context;
  const { pastKey, pastValue, mask, attentionBias } = given;
  const parts = separated(c, given);
  const biases = given.bias ? splitLast(c, given.bias, biasSizes(c, parts, given.bias)) : [];
  const [q, k, v] = parts.map((part, i) => {
    if (c.rank(part) === 4) return part;
    return splitHeads(c, biases[i] ? c.add(part, biases[i]) : part, int('num_heads', 1));
  }) as [string, string, string];
  const heads = { q, k: after(c, pastKey, k), v: after(c, pastValue, v), past: pastKey };
  const result = attend(c, heads, microsoftMasks(context, heads, mask, attentionBias));
  return [joinHeads(c, result), heads.k, heads.v];
}

/** Q, K and V where one input has them head by head: [B, S, H, 3, D], or K and V [B, T, H, 2, D]. */
function separated(c: OpBuilder, { query, key, value }: Projected): [string, string, string] {
  if (key && value) return [query, key, value];
  const packed = key || query;
  const count = key ? 2 : 3;
  const [batch, rows, heads, , size] = c.dims(packed);
  if (c.rank(packed) !== 5 || typeof heads !== 'number' || typeof size !== 'number') {
    throw new Refusal(`the shape of its packed input ${packed} is not known`);
  }
  const shape = c.concat([c.sizesOf(packed, [0, 1]), c.integers([heads * size])], 0);
  const parts = Array.from({ length: count }, (_, i) =>
    c.reshape(c.stretch(packed, 3, i, i + 1), shape, [batch!, rows!, heads * size]),
  );
  return (key ? [query, ...parts] : parts) as [string, string, string];
}

/** com.microsoft MultiHeadAttention. */
export const multiHeadAttention: Decomposition = (context) => {
  const [query, key, value, bias, mask, attentionBias, pastKey, pastValue, ...more] =
    context.x as string[];
  refuseIf(more.some(Boolean), 'past_sequence_length and cache_indirection are not supported');
  const inputs = { bias, mask, attentionBias, pastKey, pastValue };
  return attendProjected(context, { query: query!, key: key!, value: value!, ...inputs });
};

/** com.microsoft DecoderMaskedMultiHeadAttention: one token, which attends to given keys and to itself. */
export const decoderMaskedMultiHeadAttention: Decomposition = (context) => {
  const { x, int } = context;
  const [query, key, value, mask, attentionBias, pastKey, pastValue, ...more] = x as string[];
  const [, , , bias] = more;
  const isCached = Boolean(pastKey || pastValue) || int('past_present_share_buffer', 0) !== 0;
  refuseIf(isCached, 'a cache that it writes into has no gradient: it works token by token');
  refuseIf(
    more.slice(0, 3).some(Boolean),
    'beams (beam_width, cache_indirection) are not supported',
  );
  const inputs = { bias, mask, attentionBias, pastKey: undefined, pastValue: undefined };
  return attendProjected(context, { query: query!, key: key!, value: value!, ...inputs });
};

/** com.microsoft PagedAttention. */
export const pagedAttention: Decomposition = () => {
  throw new Refusal(
    'it reads and writes a cache of pages that the runtime keeps, and its tokens have no axis of samples',
    'Build the model with GroupQueryAttention (without paged attention), train that, and move the adapters.',
  );
};

/** Attention of opset 23: Q, K and V [B, H, S, D] or [B, S, H·D], heads of K and V may be fewer. */
export const scaledDotProductAttention: Decomposition = (context) => {
  const { x, c, int, float } = context;
  const [query, key, value, mask, pastKey, pastValue, lengths] = x as string[];
  refuseIf(
    Boolean(lengths) && int('is_causal', 0) !== 0 && c.type(query!).dtype === 'float64',
    'nonpad_kv_seqlen with is_causal is another function in float64',
  );
  const counts = ['q', 'kv', 'kv'].map((name) => int(`${name}_num_heads`, 0));
  const isJoined = c.rank(query!) === 3;
  const [q, k, v] = [query!, key!, value!].map((part, i) =>
    isJoined ? splitHeads(c, part, counts[i]!) : part,
  ) as [string, string, string];
  const heads = { q, k: after(c, pastKey, k), v: after(c, pastValue, v), past: pastKey };
  const isBoolean = mask && c.type(mask).dtype === 'bool';
  const masks = [
    ...(isBoolean ? [mask] : []),
    ...orderMasks(c, heads, int('is_causal', 0) !== 0, lengths),
  ];
  const bias = isBoolean ? undefined : mask;
  const result = attend(c, heads, {
    scale: float('scale', 0) || undefined,
    biases: bias ? [c.op('Max', [bias, lowest(c, bias)], c.type(bias))] : [],
    masks,
    softcap: float('softcap', 0),
    openRows: mask || lengths ? openRows(c, masks, bias) : undefined,
  });
  return [isJoined ? joinHeads(c, result) : result, heads.k, heads.v];
};

/** The causal mask after a cache, where a single row attends to everything. */
function cachedMask(c: OpBuilder, heads: Heads): string {
  const [rows, last] = [c.dims(heads.q)[2], lastColumns(c, heads)];
  if (typeof rows === 'number' && rows !== 1) return upTo(c, last, heads);
  const [rowCount, all] = [heads.q, heads.k].map((value) => c.sizesOf(value, [2]));
  const isAlone = c.compare('Equal', rowCount!, c.integers([1]));
  return upTo(c, c.where(isAlone, all!, last), heads);
}

/**
 * The keys that causality and the lengths of the samples [B] leave, one number of keys for each: the last
 * row is then at the last key that counts.
 */
function orderMasks(c: OpBuilder, heads: Heads, isCausal: boolean, lengths?: string): string[] {
  const { q, k, past } = heads;
  if (!lengths) return isCausal ? [past ? cachedMask(c, heads) : causalMask(c, heads)] : [];
  const columns = c.unsqueeze(lengths, [1]);
  if (!isCausal) {
    return [c.unsqueeze(c.compare('Less', c.positions(k, 2), columns), [1, 2])];
  }
  const start = c.sub(columns, c.sizesOf(q, [2]));
  return [c.unsqueeze(upTo(c, c.add(start, c.positions(q, 2)), heads), [1])];
}

/** Rows in which a place is left by all masks, and by a bias above the lowest number (exporters write it for -∞). */
function openRows(c: OpBuilder, masks: readonly string[], bias: string | undefined): string {
  const all = bias ? [...masks, c.compare('Greater', bias, lowest(c, bias))] : masks;
  const open = all.reduce((a, b) =>
    c.op('And', [a, b], { dtype: 'bool', shape: broadcast(c.shape(a), c.shape(b)) }),
  );
  const some = c.reduce('ReduceMax', c.cast(open, 'float32'), [-1]);
  return c.compare('Greater', some, c.number(some, 0));
}

/**
 * The masks of com.microsoft operators as terms of the scores: [B, T] and [B, S, T] of 0 and 1; [B] with
 * the number of places that count; [2·B] with where they end and where they start; [3·B + 2] with their
 * number first.
 */
function maskBias(context: NodeContext, mask: string, heads: Heads, filter: number): string {
  const { c } = context;
  const counts = c.where(
    isCounted(context, mask, heads),
    c.number(heads.q, 0),
    c.number(heads.q, filter),
  );
  const axes = c.rank(mask) === 3 ? [1] : [1, 2];
  return c.unsqueeze(counts, axes);
}

function isCounted({ node, c }: NodeContext, mask: string, { q, k }: Heads): string {
  if (c.rank(mask) === 2 || c.rank(mask) === 3) {
    return c.compare('Greater', mask, c.number(mask, 0));
  }
  if (c.rank(mask) !== 1) {
    throw new Refusal(`a mask of shape [${c.dims(mask).join(', ')}] is not supported`);
  }
  const [length, batch] = [c.dims(mask)[0]!, c.dims(q)[0]!];
  const places = c.positions(k, 2);
  const isBefore = (vector: string) =>
    c.compare('Less', places, c.unsqueeze(c.cast(vector, 'int64'), [1]));
  const count = c.sizesOf(q, [0]);
  const end = isBefore(length === batch && length !== null ? mask : c.stretch(mask, 0, 0, count));
  const areKnown = typeof batch === 'number' && typeof length === 'number';
  const isPair = areKnown ? length === 2 * batch : length !== batch || length === null;
  // MultiHeadAttention's mask goes on after the numbers of places, for kernels of GPUs.
  if (!isPair || node.opType !== 'Attention') return end;
  const start = isBefore(
    c.stretch(c.concat([mask, zerosOf(c, mask, count)], 0), 0, count, c.add(count, count)),
  );
  return c.op('And', [end, c.not(start)], c.type(end));
}

/** Starts where a mask has none: where its length is not known, it may be without. */
function zerosOf(c: OpBuilder, mask: string, count: string): string {
  const { dtype } = c.type(mask);
  return c.op('Expand', [c.scalar(dtype, 0), count], { dtype, shape: [null] });
}

function packedSize(c: OpBuilder, weights: string): number | undefined {
  const size = c.dims(weights)[1];
  return typeof size === 'number' ? size : undefined;
}

function biasSizes(c: OpBuilder, [q, k, v]: readonly string[], bias: string): number[] {
  const widths = [q!, k!, v!].map((part) => (c.rank(part) === 3 ? c.dims(part)[2] : undefined));
  const total = c.dims(bias)[0];
  const [first = 0, second = first] = widths as (number | undefined)[];
  if (typeof first === 'number' && typeof total === 'number') {
    return [first, second as number, total - first - (second as number)];
  }
  throw new Refusal(`the size of its bias ${bias} is not static`);
}

/** One of the first axis. */
function pick(c: OpBuilder, value: string, index: number): string {
  const { dtype, shape } = c.type(value);
  const type = { dtype, shape: shape?.slice(1) ?? null };
  return c.op('Gather', [value, c.scalar('int64', index)], type, { axis: { int: 0 } });
}

function given(value: string | undefined): string[] {
  return value ? [value] : [];
}
