/** Tensors as rows of their last axis. */
import { type TensorValue, tensorToFloat64 } from '../../runtime/tensor-value.js';

export type Row = Float32Array | Float64Array;

/** The rows of the last axis; views where the tensor has a type that JavaScript computes with. */
export function* rowsOf(tensor: TensorValue): Generator<Row> {
  const width = tensor.dims.at(-1) ?? 1;
  const { data } = tensor;
  const numbers = data instanceof Float32Array ? data : tensorToFloat64(tensor);
  for (let start = 0; start < numbers.length; start += width) {
    yield numbers.subarray(start, start + width);
  }
}

/** The index of the largest number, the first of equals. */
export function argmax(row: Row): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i]! > row[best]!) best = i;
  return best;
}
