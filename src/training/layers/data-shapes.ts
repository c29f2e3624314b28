/** Shapes that are known from the data before the first batch is made. */

import type { Dataset } from '../../data/dataset.js';
import { groupOf } from '../../data/match.js';
import { PADDING_MASK } from '../../data/trim.js';
import type { Dim, ValueInfo } from '../../onnx/model.js';

/** The sizes of the symbols of the model's inputs in a batch of the dataset. */
export function symbolSizes(
  inputs: readonly ValueInfo[],
  { keys }: Dataset,
  batchSize: number,
): Map<string, number> {
  const sizes = new Map<string, number>();
  // Losses of pairs want whole pairs of half of it, too.
  const evenSize = batchSize + (batchSize % 2);
  for (const { name, shape } of inputs) {
    const sample = keys.get(name);
    const found = sample && shape && axesOf(sample.shape, shape, evenSize);
    shape?.forEach((dim, axis) => {
      const size = found?.[axis];
      if (typeof dim === 'string' && size !== undefined) sizes.set(dim, size);
    });
  }
  return sizes;
}

/**
 * The shapes of the model's inputs where every batch has the same: none where the last batch of an
 * epoch is smaller, but for the axes of inputs without elements. Graphs that compute shapes of their own can often be differentiated in no other
 * way, and on GPUs only arithmetic on shapes that are known beforehand does not end up on the CPU.
 * @param keepPadding false where batches may be cut to their longest row: then there are no shapes for
 * inputs with a mask
 */
export function batchShapes(
  inputs: readonly Pick<ValueInfo, 'name' | 'shape'>[],
  { keys, size, leaveOut }: Dataset,
  batchSize: number,
  keepPadding: boolean,
): Map<string, readonly Dim[]> {
  // The check of the data comes later, and may leave samples out.
  const isWhole = size % batchSize === 0 && leaveOut === undefined;
  const areAlike = isWhole && (keepPadding || !keys.has(PADDING_MASK));
  const shapes = inputs.flatMap(({ name, shape }) => {
    const sample = keys.get(name);
    if (!shape || !sample) return [];
    const whole = areAlike && !sample.varies ? rowsOf(batchSize, sample.shape, shape) : undefined;
    const found = whole ?? withoutElements(sample.shape, shape);
    return found ? [[name, found] as const] : [];
  });
  return new Map(shapes);
}

/**
 * An input without elements with the sizes that samples have: a symbol would mean some elements, or
 * for another size than the values have that it is put together with.
 */
function withoutElements(sample: readonly number[], input: readonly Dim[]): Dim[] | undefined {
  if (!sample.includes(0)) return undefined;
  return input.map((dim, axis) => (typeof dim === 'number' ? dim : (sample[axis - 1] ?? dim)));
}

/** A batch of samples, each of which is one row of the input or a group of them. */
function axesOf(sample: readonly number[], input: readonly Dim[], batchSize: number): number[] {
  const group = groupOf(sample, input);
  return group > 1 ? [group * batchSize, ...sample.slice(1)] : [batchSize, ...sample];
}

/** undefined where samples do not fit the input. */
function rowsOf(
  batchSize: number,
  sample: readonly number[],
  input: readonly Dim[],
): readonly number[] | undefined {
  const rows = axesOf(sample, input, batchSize);
  const fits = (dim: Dim, axis: number) => typeof dim !== 'number' || dim === rows[axis];
  return rows.length === input.length && input.every(fits) ? rows : undefined;
}
