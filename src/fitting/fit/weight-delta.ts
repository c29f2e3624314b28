/** By how much a weight differs between two models. */

import { storedWeight } from '../../adapters/fold/base-weight.js';
import type { OpenedModel } from '../../adapters/model/opened.js';
import { OnnxLoraError } from '../../errors.js';
import { sumOfSquares } from '../../linalg/products.js';
import { toFloat64 } from '../../onnx/dtype.js';
import type { Tensor } from '../../onnx/model.js';
import { floatTypeOf } from '../../onnx/tensor.js';
import type { ChangedLayer, ChangedPair } from './changed.js';

/** ΔW of one layer. */
export interface WeightDelta {
  /** [in, out], row-major; float64 where the weights are. */
  readonly values: Float32Array | Float64Array;
  /** |W| of the base model, by the Frobenius norm. */
  readonly weightNorm: number;
}

/**
 * The change of a layer's weight in the tuned model: subtracted in float64, rounded once. As the layer
 * computes it: with Gemm's alpha, and as [in, out] whatever the layout in the file.
 * @throws OnnxLoraError `invalid-model` for a number that is not finite
 */
export async function weightDelta(
  base: OpenedModel,
  tuned: OpenedModel,
  changed: ChangedLayer,
): Promise<WeightDelta> {
  const { weight } = changed.layer.linear[0]!;
  const isDouble = weight.storedDtype === 'float64';
  const values = new (isDouble ? Float64Array : Float32Array)(weight.in * weight.out);
  const [rowStride, columnStride] = weight.transposed ? [1, weight.out] : [weight.out, 1];
  let squares = 0;
  for await (const { start, rows, columns, old, fresh } of panels(base, tuned, changed)) {
    squares += sumOfSquares(old);
    for (let row = 0, from = 0; row < rows; row++) {
      const to = (start + row) * rowStride;
      for (let column = 0; column < columns; column++, from++) {
        values[to + column * columnStride] = weight.factor * (fresh[from]! - old[from]!);
      }
    }
  }
  return { values, weightNorm: Math.abs(weight.factor) * Math.sqrt(squares) };
}

/**
 * |change| of any tensor of floating-point numbers.
 * @throws OnnxLoraError `invalid-model` for a number that is not finite
 */
export async function changeNorm(
  base: OpenedModel,
  tuned: OpenedModel,
  changed: ChangedPair,
): Promise<number> {
  let squares = 0;
  for await (const { old, fresh } of panels(base, tuned, changed)) {
    for (let i = 0; i < old.length; i++) squares += (fresh[i]! - old[i]!) ** 2;
  }
  return Math.sqrt(squares);
}

// Numbers that are in memory as float64, of either tensor, at a time.
const PANEL_ELEMENTS = 128 * 1024;

/** Runs of rows of both tensors. */
async function* panels(base: OpenedModel, tuned: OpenedModel, changed: ChangedPair) {
  const dtype = floatTypeOf(changed.base, base.model);
  const before = storedWeight(base.reader, changed.base, dtype);
  const after = storedWeight(tuned.reader, changed.tuned, dtype);
  const { columns } = before;
  const height = Math.max(1, Math.floor(PANEL_ELEMENTS / columns));
  for (let start = 0; start < before.rows; start += height) {
    const end = Math.min(before.rows, start + height);
    const rows = end - start;
    const old = toFloat64(dtype, await before.readRows(start, end), rows * columns);
    const fresh = toFloat64(dtype, await after.readRows(start, end), rows * columns);
    for (const [values, { label }] of [
      [old, base],
      [fresh, tuned],
    ] as const) {
      checkFinite(values, label, { ...changed.base, name: changed.name }, start * columns);
    }
    yield { start, rows, columns, old, fresh };
  }
}

/**
 * Looks for NaN and infinite numbers in a run of a tensor's numbers.
 * @param start how many of them come before
 */
function checkFinite(
  values: Float64Array,
  label: string,
  { name, dims }: Tensor,
  start: number,
): void {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return;
  throw new OnnxLoraError(
    'invalid-model',
    `${label}: tensor ${name} holds ${values[bad]} at [${positionOf(start + bad, dims).join(', ')}], expected finite numbers`,
    { hint: 'The training run diverged, or the file is damaged.' },
  );
}

function positionOf(index: number, dims: readonly number[]): number[] {
  let rest = index;
  const position = [...dims].reverse().map((dim) => {
    const at = rest % dim;
    rest = Math.floor(rest / dim);
    return at;
  });
  return position.reverse();
}
