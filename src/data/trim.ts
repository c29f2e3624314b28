/** Leaves out padding that a whole batch has in common. */
import type { ValueSpec } from '../graph/builder.js';
import { isFloating } from '../onnx/dtype.js';
import { elementCount } from '../onnx/model.js';
import { type Feeds, type TensorValue, tensorToFloat64 } from '../runtime/tensor-value.js';
import { isPast, roleOf } from './text/inputs.js';

/** The input that says which positions are padding. */
export const PADDING_MASK = 'attention_mask';

/**
 * Cuts a batch of right-padded sequences to its longest row, as `attention_mask` [B, S] has it. The
 * loss stays the same up to rounding: what is cut off is masked in every row, and where `labels` are
 * [B, S] too, all of it is `ignoreIndex`.
 *
 * Gives the batch back as it is where that cannot be said: the mask's second axis is fixed or has no
 * name, another array has the same length but is not of tokens, nor of ids in the model's axis of that name (a
 * convolution over float frames sees padding, and a mean over targets counts it), or nothing is
 * padding.
 * @param inputs of the model
 */
export function trimPadding(
  feeds: Feeds,
  inputs: readonly ValueSpec[],
  ignoreIndex: number,
): Feeds {
  const mask = feeds.get(PADDING_MASK);
  const axis = inputs.find(({ name }) => name === PADDING_MASK)?.shape?.[1];
  const length = mask?.dims[1];
  if (mask?.dims.length !== 2 || length === undefined || typeof axis !== 'string') {
    return feeds;
  }
  const sequences = [...feeds].filter(([, { dims }]) => dims[1] === length);
  // The mask of a decoder with a cache counts the tokens before this run as well: its axis has a name of its own.
  const hasCache = inputs.some(({ name }) => isPast(name));
  const isOfTokens = ({ name, shape }: ValueSpec) =>
    shape?.[1] === axis || (hasCache && roleOf(name) && typeof shape?.[1] === 'string');
  const canBeCut = sequences.every(([name, value]) => {
    const spec = inputs.find((input) => input.name === name);
    if (name === PADDING_MASK) return true;
    if (spec) return isOfTokens(spec) && !isFloating(value.dtype);
    return name === 'labels' && value.dims.length === 2;
  });
  if (!canBeCut) return feeds;
  const labels = sequences.filter(([name]) => name === 'labels').map(([, value]) => value);
  const used = Math.max(1, reach(mask, 0), ...labels.map((value) => reach(value, ignoreIndex)));
  if (used >= length) return feeds;
  const cut = sequences.map(([name, value]) => [name, firstColumns(value, used)] as const);
  return new Map([...feeds, ...cut]);
}

/** Length of the longest row of [B, S] without its trailing `padding`. */
function reach(value: TensorValue, padding: number): number {
  const length = value.dims[1]!;
  const numbers = tensorToFloat64(value);
  let longest = 0;
  for (let start = 0; start < numbers.length; start += length) {
    let end = length;
    while (end > longest && numbers[start + end - 1] === padding) end--;
    longest = Math.max(longest, end);
  }
  return longest;
}

/** [B, S, ..] to [B, count, ..] */
function firstColumns({ dtype, dims, data }: TensorValue, count: number): TensorValue {
  const [rows = 0, length = 0, ...rest] = dims;
  const width = elementCount(rest);
  const result = data.slice(0, rows * count * width);
  for (let row = 0; row < rows; row++) {
    const start = row * length * width;
    result.set(data.subarray(start, start + count * width) as never, row * count * width);
  }
  return { dtype, dims: [rows, count, ...rest], data: result };
}
