/** ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceL1, ReduceL2, ReduceLogSumExp, ReduceSumSquare. */
import type { Calculus } from '../calculus.js';
import type { GradientRule, RuleContext } from '../rule.js';

/** A rule from dx, given y and dy with the reduced axes kept. */
function reduction(dx: (c: Calculus, x: string, y: string, dy: string) => string): GradientRule {
  return (context) => {
    const { x, y, dy, c } = context;
    return [
      () => {
        const kept = (value: string) => withReducedAxes(context, value);
        return dx(c, x[0]!, kept(y[0]!), kept(dy[0]!));
      },
    ];
  };
}

/** The output with the axes that `keepdims = 0` dropped. */
function withReducedAxes({ x, c, node, int, ints }: RuleContext, value: string): string {
  if (int('keepdims', 1) !== 0) return value;
  const shape = c.shape(x[0]!);
  const { dtype } = c.type(value);
  const given = node.inputs[1];
  if (c.graph.opset >= 13 && given) {
    return c.op('Unsqueeze', [value, given], { dtype, shape: null });
  }
  // Reduced over all axes it is a scalar, which goes with any shape.
  const listed = ints('axes');
  if (!listed) return value;
  if (!shape) throw new Error(`the rank of ${x[0]} is not known`);
  const axes = listed.map((axis) => (axis < 0 ? axis + shape.length : axis));
  const full = shape.map((dim, i) => (axes.includes(i) ? 1 : dim));
  if (c.graph.opset >= 13)
    return c.op('Unsqueeze', [value, c.integers(axes)], { dtype, shape: full });
  return c.op('Unsqueeze', [value], { dtype, shape: full }, { axes: { ints: axes } });
}

export const reduceSum = reduction((c, x, _, dy) => c.expandLike(dy, x));

export const reduceMean = reduction((c, x, y, dy) => {
  const [whole, part] = [c.staticShape(x), c.staticShape(y)];
  if (whole && part) {
    return c.scale(c.expandLike(dy, x), elements(part) / elements(whole));
  }
  const share = c.div(elementsAtRunTime(c, y, x), elementsAtRunTime(c, x, x));
  return c.expandLike(c.mul(dy, share), x);
});

function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function elementsAtRunTime(c: Calculus, value: string, like: string): string {
  const size = c.op('Size', [value], { dtype: 'int64', shape: [] });
  return c.cast(size, c.type(like).dtype);
}

/** The gradient goes to the extreme element, in equal parts where several tie. */
const extreme = reduction((c, x, y, dy) => {
  const mask = c.cast(c.compare('Equal', x, y), c.type(x).dtype);
  return c.div(c.mul(dy, mask), c.sumTo(mask, y));
});

export const reduceMax = extreme;
export const reduceMin = extreme;

export const reduceL1 = reduction((c, x, _, dy) => c.mul(dy, c.sign(x)));
export const reduceL2 = reduction((c, x, y, dy) => c.mul(c.div(dy, y), x));
export const reduceSumSquare = reduction((c, x, _, dy) => c.mul(c.scale(dy, 2), x));
export const reduceLogSumExp = reduction((c, x, y, dy) => c.mul(dy, c.exp(c.sub(x, y))));
export const reduceLogSum = reduction((c, x, y, dy) => c.expandLike(c.div(dy, c.exp(y)), x));
