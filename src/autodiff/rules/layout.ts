/** Operators that move numbers without changing them: the gradient moves back. */
import { isConvertible } from '../../onnx/dtype.js';
import type { OpBuilder } from '../op-builder.js';
import { exactOutput, type GradientRule, ofOutputs } from '../rule.js';

/** Reshape, Flatten, Squeeze, Unsqueeze */
export const reshape: GradientRule = ({ x: [x], dy: [dy], c }) => [() => c.reshapeLike(dy!, x!)];

export const transpose: GradientRule = ({ x: [x], dy: [dy], c, ints }) => [
  () => c.transposeBack(dy!, ints('perm') ?? c.axes(x!).reverse()),
];

/** Expand: sums over the axes that were stretched. */
export const expand: GradientRule = ({ x: [x], dy: [dy], c }) => [() => c.sumTo(dy!, x!)];

/** Concat: each input gets its stretch of the gradient. */
export const concat: GradientRule = ({ x, dy: [dy], c, int }) => {
  const axis = int('axis', 0);
  return x.map((value, i) => () => {
    const start = totalSize(c, x.slice(0, i), axis);
    const end = totalSize(c, x.slice(0, i + 1), axis);
    return c.reshapeLike(c.stretch(dy!, axis, start, end), value);
  });
};

/** The sum of the values' sizes along an axis, as a number or an int64 vector of one. */
function totalSize(c: OpBuilder, values: readonly string[], axis: number): number | string {
  const sizes = values.map((value) => c.shape(value)?.at(axis));
  if (sizes.every((size) => typeof size === 'number')) return sizes.reduce((a, b) => a + b, 0);
  const type = { dtype: 'int64', shape: [1] } as const;
  const vectors = values.map((value) => c.sizesOf(value, [axis]));
  return vectors.reduce((a, b) => c.op('Add', [a, b], type));
}

/** Split: the gradients side by side, zeros for the parts that the loss does not depend on. */
export const split = ofOutputs('all', ({ y, dy, c, int }) => [
  () => {
    const parts = dy.map((gradient, i) => gradient || c.zeros(y[i]!));
    return c.concat(parts, int('axis', 0));
  },
]);

/** The operator Where: the gradient goes to the side that was taken. */
export const where: GradientRule = ({ x: [condition, a, b], dy: [dy], c }) => [
  undefined,
  () => c.sumTo(c.where(condition!, dy!, c.number(dy!, 0)), a!),
  () => c.sumTo(c.where(condition!, c.number(dy!, 0), dy!), b!),
];

/**
 * Cast and CastLike to floating point; what a type is like has no say in the numbers. Integers that stand
 * for numbers have gradients in floats.
 */
export const cast: GradientRule = ({ x: [x], dy: [dy], c }) => [
  () => (isConvertible(c.type(x!).dtype) ? c.cast(dy!, c.type(x!).dtype) : dy!),
  'none',
];

/** Clip: nothing passes outside the bounds; what is cut off there belongs to the bound. */
export const clip: GradientRule = (context) => {
  const { dy, c } = context;
  const [x, low, high] = context.x as [string, string?, string?];
  const passed = (how: 'Equal' | 'Less' | 'Greater') =>
    c.masked(c.compare(how, x, exactOutput(context)), dy[0]!);
  // Bounds in the wrong order: everything is the upper one.
  const areCrossed = () => c.compare('Greater', low!, high!);
  return [
    () => passed('Equal'),
    () => c.sumTo(high ? c.masked(c.not(areCrossed()), passed('Less')) : passed('Less'), low!),
    () =>
      c.sumTo(low ? c.where(areCrossed(), dy[0]!, passed('Greater')) : passed('Greater'), high!),
  ];
};

/**
 * Dropout: as it is where the operator does not drop. In training what is kept grew by 1 / (1 - ratio),
 * and the second output says what is kept.
 */
export const dropout: GradientRule = ({ node, x: [x, ratio, training], dy: [dy], c }) => [
  () => {
    if (!training || c.constant(training)?.[0] === 0) return dy!;
    const kept = c.output(node, 1, { dtype: 'bool', shape: c.shape(x!) });
    const half = c.number(x!, 0.5);
    const growth = c.reciprocal(c.minus(1, ratio ? c.cast(ratio, c.type(x!).dtype) : half));
    return c.masked(kept, c.mul(dy!, c.where(training, growth, c.number(x!, 1))));
  },
  !training || c.constant(training)?.[0] === 0 ? 'none' : undefined,
];
