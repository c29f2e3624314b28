/** How many rows the products of a model get, as far as the data say. */
import type { Dim, ValueInfo } from '../../onnx/model.js';
import type { Dataset } from '../data/dataset.js';

/**
 * Multiplies the sizes of a shape, with symbols as the model's inputs have them in a batch of the
 * dataset; undefined where a size is not known.
 */
export function rowCounter(
  inputs: readonly ValueInfo[],
  { keys }: Dataset,
  batchSize: number,
): (shape: readonly Dim[]) => number | undefined {
  const sizes = new Map<string, number>();
  for (const { name, shape } of inputs) {
    const sample = keys.get(name);
    const found = sample && [batchSize, ...sample.shape];
    shape?.forEach((dim, axis) => {
      const size = found?.[axis];
      if (typeof dim === 'string' && size !== undefined) sizes.set(dim, size);
    });
  }
  return (shape) => {
    const known = shape.map((dim) => (typeof dim === 'string' ? sizes.get(dim) : dim));
    if (known.some((size) => typeof size !== 'number')) return undefined;
    return (known as number[]).reduce((product, size) => product * size, 1);
  };
}
