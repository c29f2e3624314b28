/** The distance of a value that a graph computes from the one that a file gives. */
import { isFloating } from '../onnx/dtype.js';
import { distance } from './difference.js';
import { Magnitude } from './magnitude.js';
import { type TensorValue, tensorToFloat64 } from './tensor-value.js';

export interface Deviation {
  /** Greatest |found - expected| as a share of the greatest |expected|, see {@link Magnitude}. */
  readonly share: number;
  /** The place of the greatest difference, with both numbers there. */
  readonly index: readonly number[];
  readonly expected: number;
  readonly found: number;
}

/**
 * The greatest deviation of a tensor from another one of the same shape. Infinities of one sign are
 * equal, and so are NaN and NaN. In half precision what overflows depends on which roundings a
 * runtime leaves out, so that a number in the place of one that is not finite is not a difference there.
 */
export function deviationOf(expected: TensorValue, found: TensorValue): Deviation {
  const [a, b] = [numbersOf(expected), numbersOf(found)];
  const overflows = isHalf(expected) || isHalf(found);
  const magnitude = new Magnitude();
  let [most, at] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    magnitude.add(x, x === y);
    if (x === y || (overflows && !Number.isFinite(x))) continue;
    const difference = distance(x, y);
    if (difference <= most) continue;
    most = difference;
    at = i;
  }
  const share = most === 0 ? 0 : most / magnitude.value;
  return { share, index: indexOf(at, expected.dims), expected: a[at]!, found: b[at]! };
}

/** Floats as they are: an output of a language model has millions, and copies of them take long. */
function numbersOf(tensor: TensorValue): Float32Array | Float64Array {
  return tensor.data instanceof Float32Array ? tensor.data : tensorToFloat64(tensor);
}

function isHalf({ dtype }: TensorValue): boolean {
  return isFloating(dtype) && dtype.endsWith('16');
}

/** The place of an element of a row-major tensor. */
function indexOf(element: number, dims: readonly number[]): number[] {
  const index: number[] = [];
  let rest = element;
  for (const dim of [...dims].reverse()) {
    index.unshift(rest % dim);
    rest = Math.floor(rest / dim);
  }
  return index;
}
