/** Inputs of a run as callers have them. */
import { OnnxLoraError } from '../errors.js';
import type { DataTypeName } from '../onnx/dtype.js';
import { type Feeds, isFeedable, type TensorArray, type TensorValue } from './tensor-value.js';

/** A tensor of onnxruntime-node or onnxruntime-web, in the memory of the CPU. */
export interface RuntimeTensor {
  /** Name of the element type. */
  readonly type: string;
  /** Its shape. */
  readonly dims: readonly number[];
  /** Its numbers, row by row. */
  readonly data: unknown;
}

/** A tensor of this library or of ONNX Runtime. */
export type GivenTensor = TensorValue | RuntimeTensor;

/** Inputs by name, as a map or an object, of our tensors and of ONNX Runtime's. */
export type GivenFeeds =
  | ReadonlyMap<string, GivenTensor>
  | { readonly [input: string]: GivenTensor };

/**
 * The inputs as feeds of a session; arrays are shared.
 * @throws OnnxLoraError `invalid-argument` naming the input that is not a tensor of numbers
 */
export function feedsOf(given: GivenFeeds): Feeds {
  const entries = given instanceof Map ? [...given] : Object.entries(given);
  return new Map(entries.map(([name, value]) => [name, tensorOf(name, value)]));
}

function tensorOf(name: string, value: GivenTensor): TensorValue {
  if (typeof value === 'object' && value !== null) {
    const tensor = 'dtype' in value ? value : fromRuntime(value);
    const { dtype, dims, data } = tensor;
    if (isFeedable(dtype) && Array.isArray(dims) && ArrayBuffer.isView(data)) return tensor;
  }
  throw new OnnxLoraError(
    'invalid-argument',
    `the input ${name} is not a tensor of numbers that a session takes`,
    { hint: 'Give { dtype, dims, data }, or a Tensor of onnxruntime-node.' },
  );
}

/** Since Node 24, float16 may come in an array of its own: sessions take its bits. */
function fromRuntime({ type, dims, data }: RuntimeTensor): TensorValue {
  const array = data as TensorArray;
  const isFloat16Array = type === 'float16' && !(array instanceof Uint16Array);
  const bits = isFloat16Array
    ? new Uint16Array(array.buffer, array.byteOffset, array.length)
    : array;
  return { dtype: type as DataTypeName, dims, data: bits };
}
