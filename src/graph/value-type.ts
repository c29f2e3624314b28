import type { DataTypeName } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';

/** Type of a value, and its shape as far as it is static. */
export interface ValueType {
  /** Type of the elements. */
  readonly dtype: DataTypeName;
  /** null where not even the rank is known. */
  readonly shape: readonly Dim[] | null;
}

/** Types of all values of a graph, by name. */
export type ValueTypes = ReadonlyMap<string, ValueType>;

/** Types that have gradients. */
export function isDifferentiable(type: ValueType | undefined): boolean {
  return type !== undefined && ['float32', 'float64', 'float16', 'bfloat16'].includes(type.dtype);
}
