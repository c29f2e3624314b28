/** Operators that only copy elements: the gradient is added up where they came from. */
import type { Attributes } from '../../graph/builder.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { GradientRule, RuleContext } from '../rule.js';

/**
 * `target` with `updates` added where the indices point. Half precision is added up in float32: CPUs
 * have no other kernel, and many small numbers would be lost.
 * @throws Refusal before opset 16
 */
export function scatterAdd(
  c: OpBuilder,
  opType: 'ScatterND' | 'ScatterElements',
  [target, indices, updates]: readonly [string, string, string],
  attributes: Attributes = {},
): string {
  if (c.graph.opset < 16) throw new Refusal('adding up what several outputs took needs opset 16');
  const { dtype, shape } = c.type(target);
  const wide = dtype === 'float16' || dtype === 'bfloat16' ? 'float32' : dtype;
  const inputs = [c.cast(target, wide), indices, c.cast(updates, wide)];
  const add = { ...attributes, reduction: { text: 'add' } };
  return c.cast(c.op(opType, inputs, { dtype: wide, shape }, add), dtype);
}

/**
 * For any such operator: what it makes of the numbers 0, 1, 2, … in the shape of its first input says
 * which element went where.
 */
export function movedBack({ node, x, dy, c }: RuleContext): string {
  const [input, ...rest] = x as [string, ...string[]];
  const kept = c.again(node, [numbered(c, input), ...rest], {
    dtype: 'int64',
    shape: c.shape(dy[0]!),
  });
  return scatterFlat(c, input, kept, dy[0]!);
}

export const moved: GradientRule = (context) => [() => movedBack(context)];

/** Zeros like `x` with `dy` added at elements that `indices` counts in row-major order. */
export function scatterFlat(c: OpBuilder, x: string, indices: string, dy: string): string {
  const zeros = c.flat(c.zeros(x));
  const sum = scatterAdd(c, 'ScatterElements', [zeros, c.flat(indices), c.flat(dy)]);
  return c.reshapeLike(sum, x);
}

/** 0, 1, 2, … in the shape of `x`. */
export function numbered(c: OpBuilder, x: string): string {
  const scalar = { dtype: 'int64', shape: [] } as const;
  const size = c.staticShape(x)?.reduce((a, b) => a * b, 1);
  const count = size === undefined ? c.op('Size', [x], scalar) : c.scalar('int64', size);
  const limits = [c.scalar('int64', 0), count, c.scalar('int64', 1)];
  const row = c.op('Range', limits, { dtype: 'int64', shape: [size ?? null] });
  return c.reshapeLike(row, x);
}
