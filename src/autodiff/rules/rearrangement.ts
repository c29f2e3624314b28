/** Tile, CumSum, Trilu, DepthToSpace, SpaceToDepth. */
import { Refusal } from '../refusal.js';
import type { GradientRule } from '../rule.js';

/** Tile: the copies of each element are summed, [r0, d0, r1, d1, ..] over the r. */
export const tile: GradientRule = ({ x: [x, repeats], dy: [dy], c }) => [
  () => {
    const axes = c.axes(x!);
    const columns = [repeats!, c.shapeOf(x!)].map((vector) => c.unsqueeze(vector, [1]));
    const split = c.flat(c.concat(columns, 1));
    const sizes = c.dims(x!).flatMap((size) => [null, size]);
    const apart = c.reshape(dy!, split, sizes);
    const copies = axes.map((axis) => 2 * axis);
    return c.reduceSum(apart, copies, false);
  },
];

/** CumSum: the sum from the other end. */
export const cumSum: GradientRule = ({ x: [, axis], dy: [dy], c, int }) => [
  () =>
    c.op('CumSum', [dy!, axis!], c.type(dy!), {
      exclusive: { int: int('exclusive', 0) },
      reverse: { int: 1 - int('reverse', 0) },
    }),
];

export const trilu: GradientRule = ({ node, x: [, ...diagonal], dy: [dy], c }) => [
  () => c.again(node, [dy!, ...diagonal], c.type(dy!)),
];

export const spaceToDepth: GradientRule = ({ x: [x], dy: [dy], c, int }) => [
  () => c.op('DepthToSpace', [dy!], c.type(x!), { blocksize: { int: int('blocksize', 1) } }),
];

/** [N, b², C, H, W] by DCR, [N, C, b², H, W] by CRD: the latter's channels change places first. */
export const depthToSpace: GradientRule = ({ x: [x], dy: [dy], c, int, text }) => [
  () => {
    const b = int('blocksize', 1);
    const depth = c.op('SpaceToDepth', [dy!], c.type(x!), { blocksize: { int: b } });
    if (text('mode', 'DCR') === 'DCR') return depth;
    const [batch, channels] = c.dims(x!);
    if (typeof channels !== 'number') {
      throw new Refusal(`the number of channels of ${x} is not static`);
    }
    const sizes = [b * b, channels / (b * b)];
    const places = c.dims(x!).slice(2);
    const shape = [c.sizesOf(x!, [0]), c.integers(sizes), c.sizesOf(x!, [2, 3])];
    const split = c.reshape(depth, c.concat(shape, 0), [batch!, ...sizes, ...places]);
    return c.reshapeLike(c.transpose(split, [0, 2, 1, 3, 4]), x!);
  },
];
