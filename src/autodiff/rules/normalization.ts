/** Softmax, LayerNormalization and RMS normalization. */
import type { OpBuilder } from '../op-builder.js';
import { type GradientRule, ofOutputs, type RuleContext } from '../rule.js';

/**
 * dx = y · (dy - Σ dy·y). Before opset 13 the operator flattens all axes from `axis` on, and the sum
 * goes over all of them.
 */
export const softmax: GradientRule = (context) => {
  const { dy, c } = context;
  return [
    () => {
      const y = guarded(context);
      const sum = c.reduceSum(c.mul(dy[0]!, y), softmaxAxes(context));
      return c.mul(y, c.sub(dy[0]!, sum));
    },
  ];
};

/**
 * The output with 0 for NaN, where the model itself does that, or chooses by a mask what it takes of it:
 * rows without a place to attend to are NaN, and their gradient has to be 0, not 0 · NaN.
 */
function guarded({ node, y: [y], c }: RuleContext): string {
  const own = node.outputs[0];
  const guard = c.graph.nodes.find(({ opType, inputs }) => opType === 'IsNaN' && inputs[0] === own);
  if (guard) return c.where(guard.outputs[0]!, c.number(y!, 0), y!);
  // Only NaN differs from itself.
  return isChosen(c, own!) ? c.masked(c.compare('Equal', y!, y!), y!) : y!;
}

/** Whether a Where takes a value, or leaves it. */
function isChosen(c: OpBuilder, value: string): boolean {
  return c.graph.nodes.some(({ opType, inputs, outputs }) => {
    if (opType === 'Where') return inputs.slice(1).includes(value);
    const isCopy = (opType === 'Cast' || opType === 'Identity') && inputs[0] === value;
    return isCopy && isChosen(c, outputs[0]!);
  });
}

/** dx = dy - exp(y) · Σ dy */
export const logSoftmax: GradientRule = (context) => {
  const { y, dy, c } = context;
  return [
    () => {
      const sum = c.reduceSum(dy[0]!, softmaxAxes(context));
      return c.sub(dy[0]!, c.mul(c.exp(y[0]!), sum));
    },
  ];
};

function softmaxAxes({ y, c, int }: RuleContext): number[] {
  if (c.graph.opset >= 13) return [int('axis', -1)];
  return c.axes(y[0]!).slice(c.axis(y[0]!, int('axis', 1)));
}

/** A value without its mean and with standard deviation 1 over some axes. */
export interface Normalized {
  /** n */
  readonly value: string;
  /** 1 / (standard deviation or root mean square) */
  readonly inverse: string;
  /** Whether the mean was taken off. */
  readonly centered: boolean;
}

/** n = (x - mean(x)) / √(mean((x - mean)²) + ε) */
export function standardized(
  c: OpBuilder,
  x: string,
  axes: readonly number[],
  epsilon: number,
): Normalized {
  const { value, inverse } = byRootMeanSquare(c, c.sub(x, c.mean(x, axes)), axes, epsilon);
  return { value, inverse, centered: true };
}

/** n = x / √(mean(x²) + ε) */
export function byRootMeanSquare(
  c: OpBuilder,
  x: string,
  axes: readonly number[],
  epsilon: number,
): Normalized {
  const inverse = c.reciprocal(c.sqrt(c.shift(c.mean(c.square(x), axes), epsilon)));
  return { value: c.mul(x, inverse), inverse, centered: false };
}

/**
 * The gradient g of n taken back to x: (g - mean(g) - n · mean(g·n)) / std, without the mean of g where
 * none was taken off.
 */
export function throughNormalization(
  c: OpBuilder,
  g: string,
  { value: n, inverse, centered }: Normalized,
  axes: readonly number[],
): string {
  const along = c.mul(n, c.mean(c.mul(g, n), axes));
  const rest = centered ? c.sub(g, c.mean(g, axes)) : g;
  return c.mul(c.sub(rest, along), inverse);
}

type Normalize = (c: OpBuilder, x: string, axes: readonly number[], epsilon: number) => Normalized;

/**
 * A rule for `y = n · scale + bias`, n normalized over the axes from `axis` on, whose further outputs
 * are the mean, where one was taken off, and 1 / std.
 */
function normalization(outputs: readonly number[], normalize: Normalize): GradientRule {
  return ofOutputs(outputs, (context) => {
    const { x, dy, c, float, int } = context;
    const [input, scale, bias] = x as [string, string, string?];
    const axes = c.axes(input).slice(c.axis(input, int('axis', -1)));
    const norm = () => normalize(c, input, axes, float('epsilon', 1e-5));
    const [first] = dy;
    const scaled = () => throughNormalization(c, c.mul(first!, scale), norm(), axes);
    return [
      () => {
        const parts = [...(first ? [scaled()] : []), ...statistics(context, norm(), axes)];
        return parts.reduce((a, b) => c.add(a, b));
      },
      () => (first ? c.sumTo(c.mul(first, norm().value), scale) : c.zeros(scale)),
      () => (first ? c.sumTo(first, bias!) : c.zeros(bias!)),
    ];
  });
}

/** The terms of dx by the mean μ and r = 1 / std of N numbers: dμ / N and -dr · r² · n / N. */
function statistics(
  { x: [x], dy, c }: RuleContext,
  { value, inverse, centered }: Normalized,
  axes: readonly number[],
): string[] {
  const [mean, deviation] = centered ? [dy[1], dy[2]] : ['', dy[1]];
  const share = (gradient: string) => {
    const count = c.countOf(x!, axes);
    const own = c.cast(gradient, c.type(x!).dtype);
    return typeof count === 'number' ? c.scale(own, 1 / count) : c.div(own, count);
  };
  const along = () => c.mul(value, c.mul(share(deviation!), c.square(inverse)));
  return [...(mean ? [c.expandLike(share(mean), x!)] : []), ...(deviation ? [c.neg(along())] : [])];
}

/**
 * n and 1 / std in one pass over memory: LayerNormalization with a scale of 1 is n, and its third
 * output is 1 / std.
 */
export function layerNormalized(
  c: OpBuilder,
  x: string,
  axes: readonly number[],
  epsilon: number,
): Normalized {
  const type = c.type(x);
  const sizes = axes.map((axis) => c.dims(x)[axis]!);
  // The operator computes the statistics of other types in float32.
  const fits = type.dtype === 'float32' && sizes.every((size) => typeof size === 'number');
  if (!fits) return standardized(c, x, axes, epsilon);
  const ones = c.op('Expand', [c.number(x, 1), c.integers(sizes as number[])], {
    dtype: type.dtype,
    shape: sizes,
  });
  const statistic = {
    dtype: type.dtype,
    shape: c.dims(x).map((dim, axis) => (axes.includes(axis) ? 1 : dim)),
  };
  const attributes = { axis: { int: axes[0]! }, epsilon: { float: epsilon } };
  const types = [type, statistic, statistic];
  const [value, , inverse] = c.ops('LayerNormalization', [x, ones], types, attributes);
  return { value: value!, inverse: inverse!, centered: true };
}

/** n = (x - mean) / std */
export const layerNormalization = normalization([0, 1, 2], layerNormalized);

/** n = x / rms */
export const rmsNormalization = normalization([0, 1], byRootMeanSquare);
