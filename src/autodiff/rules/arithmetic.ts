/** Add, Sub, Mul, Div, Pow, Min, Max, Sum, Mean: with broadcasting. */
import { exactOutput, type GradientRule } from '../rule.js';

export const add: GradientRule = ({ x: [a, b], dy: [dy], c }) => [
  () => c.sumTo(dy!, a!),
  () => c.sumTo(dy!, b!),
];

export const sub: GradientRule = ({ x: [a, b], dy: [dy], c }) => [
  () => c.sumTo(dy!, a!),
  () => c.neg(c.sumTo(dy!, b!)),
];

export const mul: GradientRule = ({ x: [a, b], dy: [dy], c }) => [
  () => c.sumTo(c.mul(dy!, b!), a!),
  () => c.sumTo(c.mul(dy!, a!), b!),
];

/** d(a/b) = da / b - y · db / b */
export const div: GradientRule = ({ x: [a, b], y: [y], dy: [dy], c }) => [
  () => c.sumTo(c.div(dy!, b!), a!),
  () => c.neg(c.div(c.sumTo(c.mul(dy!, y!), b!), b!)),
];

/** d(aᵇ) = b · aᵇ⁻¹ · da + aᵇ · ln a · db, where a = 0 leaves nothing of the second term. */
export const pow: GradientRule = ({ x: [a, b], y: [y], dy: [dy], c }) => {
  const [exponent, ...more] = c.constant(b) ?? [];
  const known = more.length === 0 ? exponent : undefined;
  return [
    () => {
      // b · aᵇ⁻¹ would be 0 · ∞ at 0.
      if (known === 0) return c.zeros(a!);
      if (known === 2) return c.sumTo(c.mul(dy!, c.scale(a!, 2)), a!);
      const power = known === undefined ? c.cast(b!, c.type(a!).dtype) : c.number(a!, known);
      const less = known === undefined ? c.shift(power, -1) : c.number(a!, known - 1);
      return c.sumTo(c.mul(dy!, c.mul(power, c.pow(a!, less))), a!);
    },
    () => {
      const isZero = c.compare('Equal', a!, c.number(a!, 0));
      const log = c.unary('Log', c.where(isZero, c.number(a!, 1), a!));
      return c.sumTo(c.mul(dy!, c.mul(y!, log)), b!);
    },
  ];
};

/** The gradient goes to the operand that was taken; to all of them in equal parts where they tie. */
const extremum: GradientRule = (context) => {
  const { x, dy, c } = context;
  const y = exactOutput(context);
  const taken = (a: string) => c.cast(c.compare('Equal', a, y), c.type(y).dtype);
  const ties = () => x.map(taken).reduce((a, b) => c.add(a, b));
  return x.map((a) => () => c.sumTo(c.div(c.mul(dy[0]!, taken(a)), ties()), a));
};

export const min = extremum;
export const max = extremum;

export const sum: GradientRule = ({ x, dy: [dy], c }) => x.map((a) => () => c.sumTo(dy!, a));

export const mean: GradientRule = ({ x, dy: [dy], c }) =>
  x.map((a) => () => c.scale(c.sumTo(dy!, a), 1 / x.length));
