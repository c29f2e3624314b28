/** What the data say about shapes before the first batch is made. */
import type { ValueInfo } from '../../onnx/model.js';
import type { Dataset } from '../data/dataset.js';
import { PADDING_MASK } from '../data/trim.js';

/** The sizes that stand for the symbols of the model's inputs in a batch of the dataset. */
export function symbolSizes(
  inputs: readonly ValueInfo[],
  { keys }: Dataset,
  batchSize: number,
): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const { name, shape } of inputs) {
    const sample = keys.get(name);
    const found = sample && [batchSize, ...sample.shape];
    shape?.forEach((dim, axis) => {
      const size = found?.[axis];
      if (typeof dim === 'string' && size !== undefined) sizes.set(dim, size);
    });
  }
  return sizes;
}

/**
 * The shapes of the model's inputs where every batch has the same: none where the last batch of an
 * epoch is smaller, or where padding is cut off. Graphs that compute shapes of their own can often be
 * differentiated in no other way.
 */
export function batchShapes(
  inputs: readonly ValueInfo[],
  { keys, size }: Dataset,
  batchSize: number,
): Map<string, readonly number[]> | undefined {
  if (size % batchSize !== 0 || keys.has(PADDING_MASK)) return undefined;
  const shapes = inputs.flatMap(({ name, shape }) => {
    const sample = keys.get(name);
    const isRow = sample && sample.shape.length + 1 === shape?.length;
    return isRow ? [[name, [batchSize, ...sample.shape]] as const] : [];
  });
  return new Map(shapes);
}
