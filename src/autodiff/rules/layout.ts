/** Operators that move numbers without changing them: the gradient moves back. */
import type { GradientRule, RuleContext } from '../rule.js';

/** Reshape, Flatten, Squeeze, Unsqueeze */
export const reshape: GradientRule = ({ x: [x], dy: [dy], c }) => [() => c.reshapeLike(dy!, x!)];

export const transpose: GradientRule = ({ x: [x], dy: [dy], c, ints }) => [
  () => {
    const rank = c.rank(x!) ?? c.rank(dy!);
    if (rank === undefined) throw new Error(`the rank of ${x} is not known`);
    const perm = ints('perm') ?? Array.from({ length: rank }, (_, i) => rank - 1 - i);
    return c.transpose(
      dy!,
      perm.map((_, i) => perm.indexOf(i)),
    );
  },
];

/** Expand: sums over the axes that were stretched. */
export const expand: GradientRule = ({ x: [x], dy: [dy], c }) => [() => c.sumTo(dy!, x!)];

/** Concat: each input gets its stretch of the gradient. */
export const concat: GradientRule = ({ x, dy: [dy], c, int }) => {
  const axis = int('axis', 0);
  return x.map((_, i) => () => {
    const from = x.slice(0, i).map((before) => sizeAlong(c, before, axis));
    const start = from.reduce((a, b) => sum(c, a, b), { known: 0, value: undefined });
    const end = sum(c, start, sizeAlong(c, x[i]!, axis));
    return slice(c, dy!, vector(c, start), vector(c, end), axis, x[i]!);
  });
};

/** Split: the gradients side by side, zeros for the parts that the loss does not depend on. */
export const split: GradientRule = ({ y, dy, c, int, x: [x] }) => [
  () => {
    const parts = dy.map((gradient, i) => gradient || zerosLike(c, y[i]!));
    const { dtype, shape } = c.type(x!);
    return c.op('Concat', parts, { dtype, shape }, { axis: { int: int('axis', 0) } });
  },
];

/** Where: the gradient goes to the side that was taken. */
export const where: GradientRule = ({ x: [condition, a, b], dy: [dy], c }) => [
  undefined,
  () => c.sumTo(c.where(condition!, dy!, c.number(dy!, 0)), a!),
  () => c.sumTo(c.where(condition!, c.number(dy!, 0), dy!), b!),
];

/** Cast between floating-point types. */
export const cast: GradientRule = ({ x: [x], dy: [dy], c }) => [
  () => c.cast(dy!, c.type(x!).dtype),
];

/** Clip: nothing passes outside the bounds. */
export const clip: GradientRule = ({ x: [x], y: [y], dy: [dy], c }) => [
  () => c.mul(dy!, c.cast(c.compare('Equal', x!, y!), c.type(x!).dtype)),
];

type C = RuleContext['c'];

/** A size that is a number, or a value of shape [1]. */
interface Size {
  readonly known: number | undefined;
  readonly value: string | undefined;
}

function sizeAlong(c: C, value: string, axis: number): Size {
  const shape = c.shape(value);
  const size = shape?.at(axis);
  if (typeof size === 'number') return { known: size, value: undefined };
  const whole = c.op('Shape', [value], { dtype: 'int64', shape: [shape?.length ?? null] });
  const at = c.op('Gather', [whole, c.integers([axis])], { dtype: 'int64', shape: [1] });
  return { known: undefined, value: at };
}

function sum(c: C, a: Size, b: Size): Size {
  if (a.known !== undefined && b.known !== undefined) {
    return { known: a.known + b.known, value: undefined };
  }
  const value = c.op('Add', [vector(c, a), vector(c, b)], { dtype: 'int64', shape: [1] });
  return { known: undefined, value };
}

function vector(c: C, size: Size): string {
  return size.value ?? c.integers([size.known!]);
}

function slice(
  c: C,
  value: string,
  start: string,
  end: string,
  axis: number,
  like: string,
): string {
  if (c.graph.opset < 10) throw new Error('the gradient of Concat needs opset 10');
  return c.op('Slice', [value, start, end, c.integers([axis])], c.type(like));
}

function zerosLike(c: C, value: string): string {
  return c.mul(value, c.number(value, 0));
}
