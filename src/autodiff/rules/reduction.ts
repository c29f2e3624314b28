/** The Reduce operators. A reduced value broadcasts over the axes it was reduced over. */
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import { exactOutput, type GradientRule, type RuleContext } from '../rule.js';

type Reduction = (
  c: OpBuilder,
  x: string,
  y: () => string,
  dy: string,
  axes: () => readonly number[],
) => string;

/** A rule from dx, given y and dy with the reduced axes kept. */
function reduction(dx: Reduction): GradientRule {
  return (context) => {
    const { x, dy, c } = context;
    const kept = (value: string) => withReducedAxes(context, value);
    const y = () => kept(exactOutput(context));
    return [() => dx(c, x[0]!, y, kept(dy[0]!), () => reducedAxes(context))];
  };
}

/** The output with the axes that `keepdims = 0` dropped. */
function withReducedAxes(context: RuleContext, value: string): string {
  const { x, c, int } = context;
  const given = x[1];
  if (int('keepdims', 1) !== 0) return value;
  if (given && !c.constant(given)) {
    return c.op('Unsqueeze', [value, given], { dtype: c.type(value).dtype, shape: null });
  }
  // Reduced over all axes it is a scalar, which goes with any shape.
  if (!axesOf(context)?.length && int('noop_with_empty_axes', 0) === 0) return value;
  return c.unsqueeze(value, reducedAxes(context));
}

/** The axes that the node lists, by attribute or by input. */
function axesOf({ x: [, given], c, ints }: RuleContext): readonly number[] | undefined {
  if (!given) return ints('axes');
  const axes = c.constant(given);
  if (axes) return axes;
  throw new Refusal(`its axes (${given}) are computed`);
}

function reducedAxes(context: RuleContext): readonly number[] {
  const { x, c, int } = context;
  const listed = axesOf(context) ?? [];
  if (listed.length > 0) return listed.map((axis) => c.axis(x[0]!, axis));
  return int('noop_with_empty_axes', 0) === 0 ? c.axes(x[0]!) : [];
}

/** A value by a count, which may be a number. */
export function divided(c: OpBuilder, value: string, count: number | string): string {
  return typeof count === 'number' ? c.scale(value, 1 / count) : c.div(value, count);
}

export const reduceSum = reduction((c, x, _, dy) => c.expandLike(dy, x));

export const reduceMean = reduction((c, x, _, dy, axes) =>
  c.expandLike(divided(c, dy, c.countOf(x, axes())), x),
);

/** The gradient goes to the extreme element, in equal parts where several tie. */
export function extreme(
  c: OpBuilder,
  x: string,
  y: string,
  dy: string,
  axes: readonly number[],
): string {
  const taken = c.cast(c.compare('Equal', x, y), c.type(x).dtype);
  return c.mul(taken, c.div(dy, c.reduceSum(taken, axes)));
}

export const reduceMax = reduction((c, x, y, dy, axes) => extreme(c, x, y(), dy, axes()));
export const reduceMin = reduceMax;

export const reduceL1 = reduction((c, x, _, dy) => c.mul(dy, c.sign(x)));

/** x / y; 0 where all are 0, as PyTorch has it */
export const reduceL2 = reduction((c, x, y, dy) => c.mul(c.div(dy, nonZero(c, y())), x));

export const reduceSumSquare = reduction((c, x, _, dy) => c.mul(c.scale(dy, 2), x));
export const reduceLogSumExp = reduction((c, x, y, dy) => c.mul(dy, c.exp(c.sub(x, y()))));
export const reduceLogSum = reduction((c, x, y, dy) => c.expandLike(c.div(dy, c.exp(y())), x));

/**
 * The product of the others: y / x where no element is 0. One that is the only 0 gets the product of
 * the rest; beside another 0 all get 0.
 */
export const reduceProd = reduction((c, x, y, dy, axes) => {
  const isZero = c.compare('Equal', x, c.number(x, 0));
  const alone = c.compare(
    'Equal',
    c.reduceSum(c.cast(isZero, c.type(x).dtype), axes()),
    c.number(x, 1),
  );
  const rest = c.masked(alone, c.reduce('ReduceProd', nonZero(c, x), axes()));
  return c.mul(dy, c.where(isZero, rest, c.div(y(), nonZero(c, x))));
});

/** 1 in the place of 0. */
export function nonZero(c: OpBuilder, value: string): string {
  const isZero = c.compare('Equal', value, c.number(value, 0));
  return c.where(isZero, c.number(value, 1), value);
}
