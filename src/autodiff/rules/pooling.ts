/** AveragePool, MaxPool, GlobalAveragePool, GlobalMaxPool. */
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import { exactOutput, type GradientRule, type RuleContext } from '../rule.js';
import { scatterWindows } from './convolution.js';
import { scatterFlat } from './movement.js';
import { divided, extreme } from './reduction.js';
import { type Window, windowOf } from './window.js';

function places(c: OpBuilder, x: string): number[] {
  return c.axes(x).slice(2);
}

/** Every place gets its share: 1 / the number of places. */
export const globalAveragePool: GradientRule = ({ x: [x], dy: [dy], c }) => [
  () => c.expandLike(divided(c, dy!, c.countOf(x!, places(c, x!))), x!),
];

export const globalMaxPool: GradientRule = (context) => {
  const { x, dy, c } = context;
  return [() => extreme(c, x[0]!, exactOutput(context), dy[0]!, places(c, x[0]!))];
};

/** The gradient is added to the elements that were taken, which the second output numbers. */
export const maxPool: GradientRule = ({ node, x: [x], dy: [dy], c, int }) => [
  () => {
    if (int('storage_order', 0) !== 0) throw new Refusal('storage_order 1 is not supported');
    const indices = c.output(node, 1, { dtype: 'int64', shape: c.shape(dy!) });
    return scatterFlat(c, x!, indices, dy!);
  },
];

/**
 * dX: each window's gradient, divided by the size that its mean was taken over, is added to the places
 * of the window. That is a transposed convolution with a kernel of ones, each channel by itself.
 */
export const averagePool: GradientRule = (context) => {
  const { x, dy, c, ints } = context;
  const [input] = x as [string];
  const window = windowOf(context, ints('kernel_shape') ?? [], input);
  return [
    () => {
      const share = c.mul(dy[0]!, windowShare(context, window));
      const [wide, narrow] = [input, share].map((value) => oneChannel(c, value));
      const ones = onesKernel(c, input, window);
      return c.reshapeLike(scatterWindows(c, wide!, ones, narrow!, window, 1), input);
    },
  ];
};

/** 1 / the elements of each window: where it reaches over the edge, what the operator counts there. */
function windowShare(context: RuleContext, window: Window): string {
  const { node, x, dy, c, int } = context;
  const size = window.kernel.reduce((a, b) => a * b, 1);
  const inside = [...window.begin, ...window.end].every((pad) => pad === 0);
  if (inside && int('ceil_mode', 0) === 0) return c.number(dy[0]!, 1 / size);
  // The mean of ones is covered / counted, and their sum is covered.
  const ones = c.ones(onePlane(c, x[0]!));
  const mean = c.again(node, [ones], c.type(onePlane(c, dy[0]!)));
  const covered = cover(c, ones, dy[0]!, window);
  return c.div(mean, covered);
}

/** Number of places of its input that each window covers. */
function cover(c: OpBuilder, ones: string, dy: string, window: Window): string {
  const { kernel, strides, dilations, begin, end } = window;
  const { dtype } = c.type(dy);
  const sum = c.op(
    'Conv',
    [ones, onesKernel(c, ones, window)],
    { dtype, shape: c.dims(dy).map((_, axis) => (axis < 2 ? 1 : null)) },
    {
      strides: { ints: strides },
      dilations: { ints: dilations },
      // ceil_mode has one more window, if the stride leaves it room.
      pads: { ints: [...begin, ...end.map((size, i) => size + strides[i]! - 1)] },
    },
  );
  const axes = places(c, dy);
  const starts = c.integers(kernel.map(() => 0));
  const type = c.type(onePlane(c, dy));
  return c.op('Slice', [sum, starts, c.sizesOf(dy, axes), c.integers(axes)], type);
}

function onesKernel(c: OpBuilder, like: string, { kernel }: Window): string {
  const shape = [1, 1, ...kernel];
  const one = c.number(like, 1);
  return c.op('Expand', [one, c.integers(shape)], { dtype: c.type(like).dtype, shape });
}

/** [N, C, ..] as [N·C, 1, ..] */
function oneChannel(c: OpBuilder, value: string): string {
  const axes = places(c, value);
  const lead = c.integers([-1, 1]);
  const type = { dtype: 'int64', shape: [2 + axes.length] } as const;
  const shape = c.op('Concat', [lead, c.sizesOf(value, axes)], type, { axis: { int: 0 } });
  return c.reshape(value, shape, [null, 1, ...c.dims(value).slice(2)]);
}

/** The first channel of the first sample: [1, 1, ..]. */
function onePlane(c: OpBuilder, value: string): string {
  return c.stretch(c.stretch(value, 0, 0, 1), 1, 0, 1);
}
