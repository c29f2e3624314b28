/** Add, Sub, Mul, Div, Pow, Min, Max, Sum, Mean: with broadcasting. */
import type { GradientRule } from '../rule.js';

export const add: GradientRule = ({ x: [a, b], dy: [dy], c }) => [
  () => c.sumTo(dy!, a!),
  () => c.sumTo(dy!, b!),
];

export const sub: GradientRule = ({ x: [a, b], dy: [dy], c }) => [
  () => c.sumTo(dy!, a!),
  () => c.sumTo(c.neg(dy!), b!),
];

export const mul: GradientRule = ({ x: [a, b], dy: [dy], c }) => [
  () => c.sumTo(c.mul(dy!, b!), a!),
  () => c.sumTo(c.mul(dy!, a!), b!),
];

/** d(a/b) = da / b - y · db / b */
export const div: GradientRule = ({ x: [a, b], y: [y], dy: [dy], c }) => [
  () => c.sumTo(c.div(dy!, b!), a!),
  () => c.sumTo(c.neg(c.div(c.mul(dy!, y!), b!)), b!),
];

/** d(aᵇ) = b · aᵇ⁻¹ · da + aᵇ · ln a · db, where a = 0 leaves nothing of the second term. */
export const pow: GradientRule = ({ x: [a, b], y: [y], dy: [dy], c }) => [
  () => {
    const exponent = c.cast(b!, c.type(a!).dtype);
    const less = c.op('Pow', [a!, c.sub(exponent, c.number(a!, 1))], c.type(y!));
    return c.sumTo(c.mul(dy!, c.mul(exponent, less)), a!);
  },
  () => {
    const zero = c.number(a!, 0);
    const log = c.unary('Log', c.where(c.compare('Equal', a!, zero), c.number(a!, 1), a!));
    return c.sumTo(c.mul(dy!, c.mul(y!, log)), b!);
  },
];

/** The gradient goes to the operand that was taken; to all of them in equal parts where they tie. */
const extremum: GradientRule = ({ x, y: [y], dy: [dy], c }) => {
  const taken = x.map((a) => () => c.cast(c.compare('Equal', a, y!), c.type(y!).dtype));
  const ties = () => taken.map((mask) => mask()).reduce((a, b) => c.add(a, b));
  return x.map((a, i) => () => c.sumTo(c.div(c.mul(dy!, taken[i]!()), ties()), a));
};

export const min = extremum;
export const max = extremum;

export const sum: GradientRule = ({ x, dy: [dy], c }) => x.map((a) => () => c.sumTo(dy!, a));

export const mean: GradientRule = ({ x, dy: [dy], c }) =>
  x.map((a) => () => c.sumTo(c.scale(dy!, 1 / x.length), a));
