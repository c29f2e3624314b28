/** Elementwise functions of one input: dx = dy · f'(x). */
import type { OpBuilder } from '../op-builder.js';
import { exactOutput, type GradientRule, type RuleContext } from '../rule.js';

type Derivative = (c: OpBuilder, x: string, y: string, context: RuleContext) => string;

/** A rule from the derivative, given x and y = f(x). */
function elementwise(derivative: Derivative): GradientRule {
  return (context) => {
    const { x, y, dy, c } = context;
    return [() => c.mul(dy[0]!, derivative(c, x[0]!, y[0]!, context))];
  };
}

/** A rule for a function that is the identity where a condition holds, and flat elsewhere. */
function gate(condition: Derivative): GradientRule {
  return (context) => {
    const { x, y, dy, c } = context;
    return [() => c.masked(condition(c, x[0]!, y[0]!, context), dy[0]!)];
  };
}

export function negative(c: OpBuilder, x: string): string {
  return c.compare('Less', x, c.number(x, 0));
}

export const identity: GradientRule = ({ dy: [dy] }) => [() => dy!];
export const neg: GradientRule = ({ dy: [dy], c }) => [() => c.neg(dy!)];
export const abs = elementwise((c, x) => c.sign(x));
export const exp = elementwise((_, __, y) => y);
export const log: GradientRule = ({ x: [x], dy: [dy], c }) => [() => c.div(dy!, x!)];

/** d√x = dx / 2√x */
export const sqrt: GradientRule = ({ y: [y], dy: [dy], c }) => [() => c.div(dy!, c.scale(y!, 2))];

/** d(1/x) = -y² dx */
export const reciprocal = elementwise((c, _, y) => c.neg(c.square(y)));

/** 1 - y² */
export const tanh = elementwise((c, _, y) => c.minus(1, c.square(y)));

/** y · (1 - y) */
export const sigmoid = elementwise((c, _, y) => c.mul(y, c.minus(1, y)));

/** 2/√π · exp(-x²), the factor taken into the exponent */
export const erf = elementwise((c, x) =>
  c.exp(c.minus(Math.log(2 / Math.sqrt(Math.PI)), c.square(x))),
);

export const relu = gate((c, x) => c.compare('Greater', x, c.number(x, 0)));

export const thresholdedRelu = gate((c, x, _, { float }) =>
  c.compare('Greater', x, c.number(x, float('alpha', 1))),
);

/** Shrink is the identity, shifted by the bias, outside ±λ. */
export const shrink = gate((c, x, _, { float }) =>
  c.compare('Greater', c.unary('Abs', x), c.number(x, float('lambd', 0.5))),
);

export const leakyRelu = elementwise((c, x, _, { float }) =>
  c.where(negative(c, x), c.number(x, float('alpha', 0.01)), c.number(x, 1)),
);

/** α·eˣ = y + α below 0 */
export const elu = elementwise((c, x, y, { float }) =>
  c.where(negative(c, x), c.shift(y, float('alpha', 1)), c.number(x, 1)),
);

/** e^(x/α) = y/α + 1 below 0 */
export const celu = elementwise((c, x, y, { float }) =>
  c.where(negative(c, x), c.shift(c.scale(y, 1 / float('alpha', 1)), 1), c.number(x, 1)),
);

/** γ·α·eˣ = y + γ·α below 0, γ above */
export const selu = elementwise((c, x, y, { float }) => {
  const alpha = float('alpha', 1.6732632423543772);
  const gamma = float('gamma', 1.0507009873554805);
  return c.where(negative(c, x), c.shift(y, gamma * alpha), c.number(x, gamma));
});

/** sigmoid(x) */
export const softplus = elementwise((c, x) => c.unary('Sigmoid', x));

/** 1 / (1 + |x|)² */
export const softsign = elementwise((c, x) =>
  c.reciprocal(c.square(c.shift(c.unary('Abs', x), 1))),
);

/** α between the bends, where 0 < y < 1, 0 outside */
export const hardSigmoid = elementwise((c, _, __, context) => {
  const y = exactOutput(context);
  const inside = c.mul(c.indicator('Greater', y, 0), c.indicator('Less', y, 1));
  return c.scale(inside, context.float('alpha', 0.2));
});

/** x · clip(x/6 + 1/2, 0, 1): x/3 + 1/2 between -3 and 3 */
export const hardSwish = elementwise((c, x) => {
  const middle = c.shift(c.scale(x, 1 / 3), 0.5);
  const below = c.where(c.compare('Less', x, c.number(x, -3)), c.number(x, 0), middle);
  return c.where(c.compare('Greater', x, c.number(x, 3)), c.number(x, 1), below);
});

/** y = x·s with s = sigmoid(αx): s + αy·(1 - s) */
function swishWith(defaultAlpha: number): GradientRule {
  return elementwise((c, x, y, { float }) => {
    const alpha = float('alpha', defaultAlpha);
    const s = c.unary('Sigmoid', c.scale(x, alpha));
    return c.add(s, c.scale(c.mul(y, c.minus(1, s)), alpha));
  });
}

export const swish = swishWith(1);
export const quickGelu = swishWith(1.702);

/** y = x·t with t = tanh(softplus(x)): t + x · sigmoid(x) · (1 - t²) */
export const mish = elementwise((c, x) => {
  const t = c.unary('Tanh', c.unary('Softplus', x));
  return c.add(t, c.mul(x, c.mul(c.unary('Sigmoid', x), c.minus(1, c.square(t)))));
});

/** x·Φ(x), or its tanh approximation. */
export const gelu = elementwise((c, x, _, { text }) =>
  text('approximate', 'none') === 'tanh' ? tanhGeluSlope(c, x) : erfGeluSlope(c, x),
);

/** Φ(x) + x·φ(x), with Φ(x) = (1 + erf u)/2, φ(x) = exp(-u²)/√2π, u = x/√2 */
export function erfGeluSlope(c: OpBuilder, x: string): string {
  const u = c.scale(x, Math.SQRT1_2);
  const cdf = c.shift(c.scale(c.unary('Erf', u), 0.5), 0.5);
  const pdf = c.exp(c.minus(-Math.log(2 * Math.PI) / 2, c.square(u)));
  return c.add(cdf, c.mul(x, pdf));
}

/**
 * y = x/2 · (1 + tanh u) = x·s with s = sigmoid(2u), u = k·(x + 0.044715 x³), k = √(2/π):
 * s · (1 + x·2u'·(1 - s)) with 2u' = 2k + 6k·0.044715 x²
 */
export function tanhGeluSlope(c: OpBuilder, x: string): string {
  const k = 2 * Math.sqrt(2 / Math.PI);
  const squared = c.square(x);
  const s = c.unary('Sigmoid', c.mul(x, c.shift(c.scale(squared, 0.044715 * k), k)));
  const inner = c.mul(x, c.shift(c.scale(squared, 3 * 0.044715 * k), k));
  return c.mul(s, c.shift(c.mul(inner, c.minus(1, s)), 1));
}
