/**
 * The gradient of a whole ΔW, which training never computes: where `Y = base + X · ΔW`,
 *
 *     dΔW = Xᵀ · dY    [in, out]
 *
 * with the rows of X and dY those of all samples. Weights may be quantized: their numbers are not
 * needed.
 */

import type { OpenGeometry, OpenLayer } from '../../adapters/targets/index.js';
import type { OpBuilder } from '../../autodiff/op-builder.js';

/**
 * The nodes for one use of a weight.
 * @param dy the gradient of the layer's output
 * @returns float32 [in, out], float64 where the layer computes in it
 * @throws Refusal where the rank of X or dY would have to be known and is not
 */
export function deltaGradient(
  c: OpBuilder,
  { input, geometry, weight }: OpenLayer,
  dy: string,
): string {
  const used = strided(c, input, geometry);
  const [xAxis, yAxis] = featureAxes(geometry);
  const x = featureRows(c, used, xAxis, weight.in);
  const y = featureRows(c, dy, yAxis, weight.out);
  return c.matMul(c.transpose(x, [1, 0]), y);
}

/** The axes of the features of X and Y; from the end, but for channels. */
function featureAxes(geometry: OpenGeometry): [x: number, y: number] {
  if (geometry.kind === 'channels') return [1, 1];
  return [geometry.inputColumns ? -2 : -1, geometry.outputColumns ? -2 : -1];
}

/** The part of its input that a convolution with strides reads. */
function strided(c: OpBuilder, x: string, geometry: OpenGeometry): string {
  if (geometry.kind !== 'channels' || geometry.strides.every((stride) => stride === 1)) return x;
  const { strides } = geometry;
  const all = (value: number) => c.integers(strides.map(() => value));
  const axes = c.integers(strides.map((_, i) => i + 2));
  const type = { dtype: c.type(x).dtype, shape: c.dims(x).map((dim, i) => (i < 2 ? dim : null)) };
  return c.op('Slice', [x, all(0), all(TO_THE_END), axes, c.integers(strides)], type);
}

// Slices end here when they mean "to the end".
const TO_THE_END = 2 ** 31 - 1;

/** [N, features], in a type that sums over many rows are exact enough in. */
function featureRows(c: OpBuilder, value: string, axis: number, features: number): string {
  const flat = c.reshape(featuresLast(c, value, axis), c.integers([-1, features]), [
    null,
    features,
  ]);
  return c.cast(flat, c.type(value).dtype === 'float64' ? 'float64' : 'float32');
}

function featuresLast(c: OpBuilder, value: string, axis: number): string {
  // A vector is its features and nothing else.
  if (axis === -1 || c.rank(value) === 1) return value;
  const axes = c.axes(value);
  const [features] = axes.splice(c.axis(value, axis), 1);
  return c.transpose(value, [...axes, features!]);
}
