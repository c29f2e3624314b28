import { type FloatName, isConvertible, toFloat64 } from '../../onnx/dtype.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { Weight } from '../targets/index.js';
import { isComputed } from '../targets/weight.js';
import { storedWeight } from './base-weight.js';

/** Whether a weight is stored as floating-point numbers, and not quantized. */
export function isStoredFloat(weight: Weight): boolean {
  return weight.constant !== undefined && isConvertible(weight.storedDtype) && !isComputed(weight);
}

/**
 * The numbers of a weight that is stored as floats: [in, out], row-major, as the layer computes with
 * them, whatever their layout in the file.
 */
export async function weightValues(reader: TensorReader, weight: Weight): Promise<Float64Array> {
  const dtype = weight.storedDtype as FloatName;
  const { rows, columns, readRows } = storedWeight(reader, weight.constant!.tensor, dtype);
  const values = toFloat64(dtype, await readRows(0, rows), rows * columns);
  const [rowStride, columnStride] = weight.transposed ? [1, rows] : [columns, 1];
  const whole = new Float64Array(values.length);
  for (let row = 0, from = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, from++) {
      whole[row * rowStride + column * columnStride] = weight.factor * values[from]!;
    }
  }
  return whole;
}
