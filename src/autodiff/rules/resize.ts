/** Resize: linear in its input, along each axis by itself. */
import { Refusal } from '../refusal.js';
import type { GradientRule, RuleContext } from '../rule.js';

/**
 * Along an axis the operator is a matrix: row i of R [in, out] is what it makes of the i-th unit vector,
 * so that R is what it makes of the identity. Then dX = dY · Rᵀ along that axis. Modes, coordinates and
 * cut-offs are the operator's own.
 */
export const resize: GradientRule = (context) => [
  () => {
    const { x, dy, c, int, text } = context;
    const input = x[0]!;
    if (text('coordinate_transformation_mode', 'half_pixel') === 'tf_crop_and_resize') {
      throw new Refusal('tf_crop_and_resize is not supported');
    }
    if (text('keep_aspect_ratio_policy', 'stretch') !== 'stretch') {
      throw new Refusal('a keep_aspect_ratio_policy is not supported, only stretch');
    }
    if (int('antialias', 0) !== 0 && text('mode', 'nearest') === 'nearest') {
      throw new Refusal('antialias goes with linear and cubic only');
    }
    return resizedAxes(context).reduce((gradient, axis) => {
      const matrix = axisMatrix(context, axis);
      // The axis is the last one while it is multiplied.
      const perm = [...c.axes(input).filter((other) => other !== axis), axis];
      const product = c.matMul(c.transpose(gradient, perm), c.transpose(matrix, [1, 0]));
      return c.transposeBack(product, perm);
    }, dy[0]!);
  },
];

/** The axes whose scale is not surely 1. */
function resizedAxes({ x, y, c, ints }: RuleContext): number[] {
  const listed = ints('axes')?.map((axis) => c.axis(x[0]!, axis)) ?? c.axes(x[0]!);
  const scales = c.constant(x[2]);
  return listed.filter((axis, i) => {
    const [before, after] = [c.dims(x[0]!)[axis], c.dims(y[0]!)[axis]];
    if (scales && scales.length > 0) return scales[i] !== 1;
    return before === null || before !== after;
  });
}

/** R [in, out] of an axis. */
function axisMatrix(context: RuleContext, axis: number): string {
  const { node, x, y, c, ints } = context;
  const [input, , scales, sizes] = x as [string, string?, string?, string?];
  const [before, after] = [c.dims(input)[axis]!, c.dims(y[0]!)[axis]!];
  const { dtype } = c.type(input);
  const size = c.sizesOf(input, [axis]);
  const identity = c.eye(dtype, typeof before === 'number' ? before : size);
  const at =
    ints('axes')
      ?.map((other) => c.axis(input, other))
      .indexOf(axis) ?? axis;
  const own = (vector: string, type: 'float32' | 'int64') =>
    c.op('Gather', [vector, c.integers([at])], { dtype: type, shape: [1] });
  const pair = (first: string, second: string) => c.concat([first, second], 0);
  const { axes: _, ...attributes } = node.attributes ?? {};
  const inputs = sizes
    ? [identity, '', '', pair(size, own(sizes, 'int64'))]
    : [identity, '', pair(c.vector('float32', [1]), own(scales!, 'float32'))];
  return c.again({ ...node, attributes }, inputs, { dtype, shape: [before, after] });
}
