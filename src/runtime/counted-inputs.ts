/** Inputs of a decoder that count its tokens: which ones, and their numbers. */
import { type DataTypeName, findDataType } from '../onnx/dtype.js';
import type { ValueInfo } from '../onnx/model.js';
import { isFeedable, type TensorValue, tensorFromNumbers } from './tensor-value.js';

/** `length`: of the rows; `places`: 0, 1 .. of a row; `ends`: the place of each row's last token. */
export type Quantity = 'length' | 'places' | 'ends';

/** An input that is computed from the tokens of a run. */
export interface CountedInput {
  readonly name: string;
  readonly dtype: DataTypeName;
  readonly rank: number;
  readonly quantity: Quantity;
}

const QUANTITIES: Readonly<Record<string, Quantity>> = {
  cache_position: 'places',
  total_sequence_length: 'length',
  seqlens_k: 'ends',
};

/** None for an input that counts nothing, or has another shape than such inputs have. */
export function countedInput({ name, dataType, shape }: ValueInfo): CountedInput[] {
  const dtype = findDataType(dataType);
  if (!Object.hasOwn(QUANTITIES, name) || !isFeedable(dtype) || !shape) return [];
  const quantity = QUANTITIES[name]!;
  const isFitting = quantity === 'length' ? shape.length <= 1 : shape.length === 1;
  return isFitting ? [{ name, dtype, rank: shape.length, quantity }] : [];
}

/** Tokens of a run. */
export interface TokenCounts {
  /** In the cache. */
  readonly past: number;
  /** Of a row, besides those in the cache. */
  readonly length: number;
  /** The place of each row's last token. */
  readonly ends: readonly number[];
}

/** The numbers of the input in a run. */
export function countedTensor(
  { dtype, rank, quantity }: CountedInput,
  { past, length, ends }: TokenCounts,
): TensorValue {
  const values: Record<Quantity, readonly number[]> = {
    ...{ length: [past + length], ends },
    places: Array.from({ length }, (_, i) => past + i),
  };
  const numbers = Float64Array.from(values[quantity]);
  return tensorFromNumbers(dtype, rank === 0 ? [] : [numbers.length], numbers);
}
