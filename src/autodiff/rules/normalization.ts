/** Softmax, LayerNormalization and RMS normalization. */
import type { Calculus } from '../calculus.js';
import type { GradientRule, RuleContext } from '../rule.js';

/**
 * dx = y · (dy - Σ dy·y). Before opset 13 the operator flattens all axes from `axis` on, and the sum
 * goes over all of them.
 */
export const softmax: GradientRule = (context) => {
  const { y, dy, c } = context;
  return [
    () => {
      const weighted = c.mul(dy[0]!, y[0]!);
      const sum = c.reduceSum(weighted, softmaxAxes(context));
      return c.mul(y[0]!, c.sub(dy[0]!, sum));
    },
  ];
};

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
  const rank = c.rank(y[0]!);
  if (rank === undefined) throw new Error(`the rank of ${y[0]} is not known`);
  const axis = int('axis', 1);
  const first = axis < 0 ? axis + rank : axis;
  return Array.from({ length: rank - first }, (_, i) => first + i);
}

/** `y = n · scale + bias` with n = (x - mean) / std over the normalized axes. */
export const layerNormalization: GradientRule = (context) => {
  const { x, dy, c, float, int } = context;
  const [input, scale, bias] = x as [string, string, string?];
  const axes = axesFrom(c, input, int('axis', -1));
  const gradients = layerNormGradients(c, input, scale, dy[0]!, axes, float('epsilon', 1e-5));
  return [gradients.input, gradients.scale, () => c.sumTo(dy[0]!, bias!)];
};

/** `y = n · scale` with n = x / rms. */
export const rmsNormalization: GradientRule = (context) => {
  const { x, dy, c, float, int } = context;
  const [input, scale] = x as [string, string];
  const axes = axesFrom(c, input, int('axis', -1));
  const gradients = rmsNormGradients(c, input, scale, dy[0]!, axes, float('epsilon', 1e-5));
  return [gradients.input, gradients.scale];
};

/** With g = dy · scale: dx = (g - mean(g) - n · mean(g · n)) / std, dscale = Σ dy · n */
export function layerNormGradients(
  c: Calculus,
  input: string,
  scale: string,
  dy: string,
  axes: readonly number[],
  epsilon: number,
) {
  const mean = (value: string) => c.reduce('ReduceMean', value, axes);
  const normalized = once(() => {
    const centered = c.sub(input, mean(input));
    const inverse = inverseRoot(c, centered, axes, epsilon);
    return { inverse, n: c.mul(centered, inverse) };
  });
  return {
    input: () => {
      const { n, inverse } = normalized();
      const g = c.mul(dy, scale);
      const bent = c.mul(n, mean(c.mul(g, n)));
      return c.mul(c.sub(c.sub(g, mean(g)), bent), inverse);
    },
    scale: () => c.sumTo(c.mul(dy, normalized().n), scale),
  };
}

/** The same without the mean: dx = (g - n · mean(g · n)) / rms */
export function rmsNormGradients(
  c: Calculus,
  input: string,
  scale: string,
  dy: string,
  axes: readonly number[],
  epsilon: number,
) {
  const normalized = once(() => {
    const inverse = inverseRoot(c, input, axes, epsilon);
    return { inverse, n: c.mul(input, inverse) };
  });
  return {
    input: () => {
      const { n, inverse } = normalized();
      const g = c.mul(dy, scale);
      return c.mul(c.sub(g, c.mul(n, c.reduce('ReduceMean', c.mul(g, n), axes))), inverse);
    },
    scale: () => c.sumTo(c.mul(dy, normalized().n), scale),
  };
}

/** 1 / √(mean(x²) + ε) */
function inverseRoot(c: Calculus, value: string, axes: readonly number[], epsilon: number): string {
  const variance = c.reduce('ReduceMean', c.square(value), axes);
  return c.unary('Reciprocal', c.unary('Sqrt', c.add(variance, c.number(value, epsilon))));
}

function axesFrom(c: Calculus, value: string, axis: number): number[] {
  if (axis === -1) return [-1];
  const rank = c.rank(value);
  if (rank === undefined) throw new Error(`the rank of ${value} is not known`);
  const first = axis < 0 ? axis + rank : axis;
  return Array.from({ length: rank - first }, (_, i) => first + i);
}

/** Shared by the gradients of several inputs, and not built where none is asked for. */
export function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
