/** Small datasets for tests. */
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { type DataTypeName, fromFloat64, isConvertible } from '../../src/onnx/dtype.js';
import { elementCount } from '../../src/onnx/model.js';
import { tensorFromNumbers } from '../../src/runtime/tensor-value.js';
import { bytesOf } from '../formats/npz-writer.js';

/** Type, shape with samples first, and values; one value stands for all. */
export type Column = readonly [
  dtype: DataTypeName,
  shape: readonly number[],
  values: readonly number[] | number,
];

export function safetensors(columns: Readonly<Record<string, Column>>): Uint8Array {
  return encodeSafetensors(
    Object.entries(columns).map(([name, [dtype, shape, values]]) => {
      const count = elementCount(shape);
      const numbers = Float64Array.from({ length: count }, (_, i) =>
        typeof values === 'number' ? values : values[i]!,
      );
      const data = isConvertible(dtype)
        ? fromFloat64(dtype, numbers)
        : bytesOf(tensorFromNumbers(dtype, shape, numbers).data);
      return { name, dtype, shape, data };
    }),
  );
}
