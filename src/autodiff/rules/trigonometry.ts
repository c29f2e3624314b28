/** Circular and hyperbolic functions and their inverses. */
import type { OpBuilder } from '../op-builder.js';
import type { GradientRule } from '../rule.js';

/** A rule from the derivative, given x and y = f(x). */
function elementwise(derivative: (c: OpBuilder, x: string, y: string) => string): GradientRule {
  return ({ x: [x], y: [y], dy: [dy], c }) => [() => c.mul(dy!, derivative(c, x!, y!))];
}

/** A rule from what dy is divided by, given x². */
function quotient(divisor: (c: OpBuilder, squared: string) => string): GradientRule {
  return ({ x: [x], dy: [dy], c }) => [() => c.div(dy!, divisor(c, c.square(x!)))];
}

export const sin = elementwise((c, x) => c.unary('Cos', x));
export const cos = elementwise((c, x) => c.neg(c.unary('Sin', x)));
export const tan = elementwise((c, _, y) => c.shift(c.square(y), 1));
export const asin = quotient((c, squared) => c.sqrt(c.minus(1, squared)));
export const acos = quotient((c, squared) => c.neg(c.sqrt(c.minus(1, squared))));
export const atan = quotient((c, squared) => c.shift(squared, 1));

/** √(1 + y²) */
export const sinh = elementwise((c, _, y) => c.sqrt(c.shift(c.square(y), 1)));
/** sinh(x) = (eˣ - e⁻ˣ) / 2 */
export const cosh = elementwise((c, x) => c.scale(c.sub(c.exp(x), c.exp(c.neg(x))), 0.5));
export const asinh = quotient((c, squared) => c.sqrt(c.shift(squared, 1)));
export const acosh = quotient((c, squared) => c.sqrt(c.shift(squared, -1)));
export const atanh = quotient((c, squared) => c.minus(1, squared));
