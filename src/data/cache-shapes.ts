/** Shapes of caches with the sizes that the rest of the model shows. */
import { ValueIndex } from '../graph/uses.js';
import { wideNumber } from '../graph/widen.js';
import type { Dim, Model, ValueInfo } from '../onnx/model.js';
import { type CacheSizes, cacheSizes } from '../runtime/cache-sizes.js';
import { isPast } from './text/inputs.js';

/** The inputs, those that are caches with numbers for heads and their size where these are known. */
export function sizedInputs(model: Model): readonly ValueInfo[] {
  const inputs = model.graph.inputs.map(widened);
  const past = inputs.filter(({ name }) => isPast(name));
  if (!past.some(hasOpenSizes)) return inputs;
  const sizes = cacheSizes(model, new ValueIndex(model));
  return inputs.map((input) => (past.includes(input) ? withSizes(input, sizes) : input));
}

/** Runs take float32 in the place of bfloat16, of which there are no arrays. */
function widened(input: ValueInfo): ValueInfo {
  return { ...input, dataType: wideNumber(input.dataType) };
}

/** Whether more is open than rows and tokens. */
function hasOpenSizes(input: ValueInfo): boolean {
  return openAxes(input).length > 1;
}

/** Open axes of one sample. */
function openAxes({ shape }: ValueInfo): number[] {
  const first = isJoined(shape) ? 2 : 1;
  return (shape ?? []).flatMap((dim, axis) =>
    axis >= first && typeof dim !== 'number' ? [axis] : [],
  );
}

/** Keys and values in one tensor: two, rows, heads, tokens, size. */
function isJoined(shape: readonly Dim[] | null): boolean {
  return shape?.length === 5 && shape[0] === 2;
}

/** The axes of heads and of their size: behind that of rows, and the last. */
function withSizes(input: ValueInfo, { head, heads }: CacheSizes): ValueInfo {
  const { shape } = input;
  const first = isJoined(shape) ? 2 : 1;
  if (shape?.length !== first + 3 || !hasOpenSizes(input)) return input;
  const sized = shape.map((dim, axis) => {
    if (typeof dim === 'number') return dim;
    if (axis === first) return heads[0] ?? dim;
    return axis === first + 2 ? (head[0] ?? dim) : dim;
  });
  return { ...input, shape: sized };
}
