/** Elementwise functions of one input: dx = dy · f'(x). */
import type { Calculus } from '../calculus.js';
import type { GradientRule, RuleContext } from '../rule.js';

type Derivative = (c: Calculus, x: string, y: string, context: RuleContext) => string;

/** A rule from the derivative, given x and y = f(x). */
function elementwise(derivative: Derivative): GradientRule {
  return (context) => {
    const { x, y, dy, c } = context;
    return [() => c.mul(dy[0]!, derivative(c, x[0]!, y[0]!, context))];
  };
}

/** 1 where the condition holds, 0 elsewhere. */
function indicator(c: Calculus, opType: 'Greater' | 'Less', x: string, bound: number): string {
  return c.cast(c.compare(opType, x, c.number(x, bound)), c.type(x).dtype);
}

export const identity: GradientRule = ({ dy: [dy] }) => [() => dy!];
export const neg: GradientRule = ({ dy: [dy], c }) => [() => c.neg(dy!)];
export const abs = elementwise((c, x) => c.sign(x));
export const exp = elementwise((_, __, y) => y);
export const log: GradientRule = ({ x: [x], dy: [dy], c }) => [() => c.div(dy!, x!)];
export const sin = elementwise((c, x) => c.unary('Cos', x));
export const cos = elementwise((c, x) => c.neg(c.unary('Sin', x)));

/** d√x = dx / 2√x */
export const sqrt: GradientRule = ({ y: [y], dy: [dy], c }) => [() => c.div(dy!, c.scale(y!, 2))];

/** d(1/x) = -y² dx */
export const reciprocal = elementwise((c, _, y) => c.neg(c.square(y)));

/** 1 - y² */
export const tanh = elementwise((c, _, y) => c.sub(c.number(y, 1), c.square(y)));

/** y · (1 - y) */
export const sigmoid = elementwise((c, _, y) => c.mul(y, c.sub(c.number(y, 1), y)));

/** 2/√π · exp(-x²) */
export const erf = elementwise((c, x) =>
  c.scale(c.exp(c.neg(c.square(x))), 2 / Math.sqrt(Math.PI)),
);

export const relu = elementwise((c, x) => indicator(c, 'Greater', x, 0));

export const leakyRelu = elementwise((c, x, _, { float }) => {
  const slope = c.number(x, float('alpha', 0.01));
  return c.where(c.compare('Less', x, c.number(x, 0)), slope, c.number(x, 1));
});

/** α·eˣ = y + α below 0 */
export const elu = elementwise((c, x, y, { float }) => {
  const below = c.add(y, c.number(x, float('alpha', 1)));
  return c.where(c.compare('Less', x, c.number(x, 0)), below, c.number(x, 1));
});

/** γ·α·eˣ = y + γ·α below 0, γ above */
export const selu = elementwise((c, x, y, { float }) => {
  const alpha = float('alpha', 1.6732632423543772);
  const gamma = float('gamma', 1.0507009873554805);
  const below = c.add(y, c.number(x, gamma * alpha));
  return c.where(c.compare('Less', x, c.number(x, 0)), below, c.number(x, gamma));
});

/** sigmoid(x) */
export const softplus = elementwise((c, x) => c.unary('Sigmoid', x));

/** 1 / (1 + |x|)² */
export const softsign = elementwise((c, x) =>
  c.unary('Reciprocal', c.square(c.add(c.unary('Abs', x), c.number(x, 1)))),
);

/** α between the bends, 0 outside: where 0 < y < 1 */
export const hardSigmoid = elementwise((c, _, y, { float }) => {
  const inside = c.mul(indicator(c, 'Greater', y, 0), indicator(c, 'Less', y, 1));
  return c.scale(inside, float('alpha', 0.2));
});

/** x · clip(x/6 + 1/2, 0, 1): x/3 + 1/2 between -3 and 3 */
export const hardSwish = elementwise((c, x) => {
  const middle = c.add(c.scale(x, 1 / 3), c.number(x, 0.5));
  const below = c.where(c.compare('Less', x, c.number(x, -3)), c.number(x, 0), middle);
  return c.where(c.compare('Greater', x, c.number(x, 3)), c.number(x, 1), below);
});

/** x·sigmoid(αx): s + αx·s·(1 - s) */
export const swish = elementwise((c, x, _, { float }) => {
  const alpha = float('alpha', 1);
  const s = c.unary('Sigmoid', c.scale(x, alpha));
  const slope = c.mul(c.scale(x, alpha), c.mul(s, c.sub(c.number(x, 1), s)));
  return c.add(s, slope);
});

/** The same with the default that com.microsoft's QuickGelu has. */
export const quickGelu: GradientRule = (context) =>
  swish({
    ...context,
    float: (name, otherwise) => context.float(name, name === 'alpha' ? 1.702 : otherwise),
  });

/** tanh(softplus(x)) + x · sigmoid(x) · (1 - tanh²(softplus(x))) */
export const mish = elementwise((c, x) => {
  const t = c.unary('Tanh', c.unary('Softplus', x));
  const slope = c.mul(c.unary('Sigmoid', x), c.sub(c.number(x, 1), c.square(t)));
  return c.add(t, c.mul(x, slope));
});

/** x·Φ(x): Φ(x) + x·φ(x), or the same of its tanh approximation. */
export const gelu: GradientRule = (context) => {
  const { x, dy, c, text } = context;
  const slope = text('approximate', 'none') === 'tanh' ? tanhGeluSlope : erfGeluSlope;
  return [() => c.mul(dy[0]!, slope(c, x[0]!))];
};

export function erfGeluSlope(c: Calculus, x: string): string {
  const cdf = c.scale(c.add(c.unary('Erf', c.scale(x, Math.SQRT1_2)), c.number(x, 1)), 0.5);
  const pdf = c.scale(c.exp(c.scale(c.square(x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
  return c.add(cdf, c.mul(x, pdf));
}

/** y = x/2 · (1 + t), t = tanh(u), u = k·(x + 0.044715 x³), k = √(2/π) */
export function tanhGeluSlope(c: Calculus, x: string): string {
  const k = Math.sqrt(2 / Math.PI);
  const squared = c.square(x);
  const inner = c.add(c.scale(squared, 0.044715 * k), c.number(x, k));
  const t = c.unary('Tanh', c.mul(x, inner));
  const du = c.add(c.scale(squared, 3 * 0.044715 * k), c.number(x, k));
  const outer = c.scale(c.add(t, c.number(x, 1)), 0.5);
  const bend = c.scale(c.mul(c.mul(x, c.sub(c.number(x, 1), c.square(t))), du), 0.5);
  return c.add(outer, bend);
}
