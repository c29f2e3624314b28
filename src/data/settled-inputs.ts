/** Inputs of a decoder that the tokens settle where a run has whole texts and nothing before them. */
import { capturesOf } from '../graph/captures.js';
import type { FixedInput } from '../graph/load.js';
import { type DataTypeName, findDataType } from '../onnx/dtype.js';
import { elementCount, type Graph, type Model, type Node, type ValueInfo } from '../onnx/model.js';
import { type CountedInput, countedInput, countedTensor } from '../runtime/counted-inputs.js';
import {
  type Feeds,
  isFeedable,
  type TensorValue,
  tensorFromNumbers,
  tensorToFloat64,
} from '../runtime/tensor-value.js';
import { sizedInputs } from './cache-shapes.js';
import { isPast, roleOf } from './text/inputs.js';

/** Keys and values in one tensor, the axis of rows behind that of the two. */
export interface JoinedCache {
  readonly name: string;
  readonly dtype: DataTypeName;
  /** Behind the axis of rows; without tokens. */
  readonly shape: readonly number[];
}

export interface SettledInputs {
  readonly numbers: ReadonlyMap<string, FixedInput>;
  readonly byTokens: readonly CountedInput[];
  readonly joined: readonly JoinedCache[];
  /** Caches that nothing reads then: they belong to a branch that is not taken. */
  readonly unread: readonly ValueInfo[];
  /** The input that the others follow; undefined where there are none. */
  readonly tokens: string | undefined;
  readonly mask: string | undefined;
}

const NUMBERS: Readonly<Record<string, number>> = {
  use_cache_branch: 0,
  past_sequence_length: 0,
  // All of them.
  num_logits_to_keep: 0,
  logits_to_keep: 0,
};

/** Of keys and values in one tensor: two, rows, heads, tokens, size. */
const JOINED_RANK = 5;
const TOKENS_AXIS = 3;

const NOTHING: SettledInputs = {
  ...{ numbers: new Map(), byTokens: [], joined: [], unread: [] },
  ...{ tokens: undefined, mask: undefined },
};

/** None where the model does not take tokens. */
export function settledInputs(model: Model): SettledInputs {
  const { graph } = model;
  const inputs = sizedInputs(model);
  const tokens = inputs.find(({ name }) => roleOf(name) === 'ids')?.name;
  if (tokens === undefined) return NOTHING;
  const numbers = new Map(inputs.flatMap(numberOf));
  const read = numbers.has('use_cache_branch') ? readIn(graph, numbers) : undefined;
  return {
    ...{ tokens, numbers },
    mask: inputs.find(({ name }) => roleOf(name) === 'mask')?.name,
    byTokens: inputs.flatMap(countedInput),
    joined: inputs.flatMap(joinedCache),
    unread: read ? inputs.filter(({ name }) => isPast(name) && !read.has(name)) : [],
  };
}

/** The names of all of them. */
export function settledNames(settled: SettledInputs): Set<string> {
  const { numbers, byTokens, joined, unread } = settled;
  return new Set([...numbers.keys(), ...[...byTokens, ...joined, ...unread].map((i) => i.name)]);
}

function numberOf({ name, dataType, shape }: ValueInfo): [string, FixedInput][] {
  const dtype = findDataType(dataType);
  if (!Object.hasOwn(NUMBERS, name) || !isFeedable(dtype) || !shape) return [];
  const value = NUMBERS[name]!;
  return shape.length > 1 ? [] : [[name, { dtype, dims: shape.map(() => 1), value }]];
}

/** [2, rows, heads, 0, size]; undefined where a size besides those of rows and tokens is open. */
export function joinedCache({ name, dataType, shape }: ValueInfo): JoinedCache[] {
  const dtype = findDataType(dataType);
  if (!isPast(name) || shape?.length !== JOINED_RANK || shape[0] !== 2) return [];
  const rest = shape.map((dim, axis) => (axis === TOKENS_AXIS ? 0 : dim)).slice(2);
  const sizes = rest.filter((dim) => typeof dim === 'number');
  const isSettled = sizes.length === rest.length && typeof shape[TOKENS_AXIS] !== 'number';
  return isSettled && isFeedable(dtype) ? [{ name, dtype, shape: sizes }] : [];
}

/** The names that nodes read, but for those of branches that are not taken. */
function readIn({ nodes }: Graph, numbers: ReadonlyMap<string, FixedInput>): Set<string> {
  const bodies = (node: Node) => {
    const number = node.opType === 'If' ? numbers.get(node.inputs[0] ?? '') : undefined;
    const untaken = number && (number.value === 0 ? 'then_branch' : 'else_branch');
    return [...node.attributes.values()].flatMap(({ name, graphs }) =>
      name === untaken ? [] : graphs,
    );
  };
  return new Set(nodes.flatMap((node) => [...node.inputs, ...bodies(node).flatMap(capturesOf)]));
}

/**
 * The feeds of a run with what they settle, where the model takes it.
 * @param feeds with the tokens
 */
export function withSettled(model: Model, feeds: Feeds): Feeds {
  const settled = settledInputs(model);
  const tokens = feeds.get(settled.tokens ?? '');
  if (!tokens) return feeds;
  const [rows = 1, length = 1] = tokens.dims;
  const { numbers, byTokens, joined, unread } = settled;
  const ends = endsOf(feeds.get(settled.mask ?? ''), rows, length);
  const counts = { past: 0, length, ends };
  return new Map<string, TensorValue>([
    ...feeds,
    ...[...numbers].map(
      ([name, { dtype, dims, value }]) =>
        [name, tensorFromNumbers(dtype, dims, Float64Array.of(value))] as const,
    ),
    ...byTokens.map((input) => [input.name, countedTensor(input, counts)] as const),
    ...joined.map(({ name, dtype, shape }) => [name, zeros(dtype, [2, rows, ...shape])] as const),
    ...unread.map((input) => [input.name, unreadCache(input, rows)] as const),
  ]);
}

function endsOf(mask: TensorValue | undefined, rows: number, length: number): number[] {
  const shown = mask ? tensorToFloat64(mask) : new Float64Array(rows * length).fill(1);
  return Array.from({ length: rows }, (_, row) => {
    const own = shown.subarray(row * length, (row + 1) * length);
    return own.reduce((sum, value) => sum + value, -1);
  });
}

/** Sizes that are open do not matter, for nothing reads it. */
function unreadCache({ dataType, shape }: ValueInfo, rows: number): TensorValue {
  const dims = (shape ?? []).map((dim, axis) => {
    if (axis === 0) return rows;
    return typeof dim === 'number' ? dim : 0;
  });
  return zeros(findDataType(dataType) ?? 'float32', dims);
}

function zeros(dtype: DataTypeName, dims: readonly number[]): TensorValue {
  return tensorFromNumbers(dtype, dims, new Float64Array(elementCount(dims)));
}
