/** Conv and ConvTranspose: each is the other's gradient with respect to its input. */
import type { Attributes } from '../../graph/builder.js';
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { GradientRule, RuleContext } from '../rule.js';
import { type Window, windowOf } from './window.js';

/** dX = ConvTranspose(dY, W), dW = Conv of X with dY over the batch, db = Σ dY. */
export const conv: GradientRule = (context) => {
  const { x, dy, c } = context;
  const [input, weight, bias] = x as [string, string, string?];
  const [window, group] = [convWindow(context, weight, input), context.int('group', 1)];
  return [
    () => scatterWindows(c, input, weight, dy[0]!, window, group),
    () => weightGradient(c, input, weight, dy[0]!, window, group),
    () => biasGradient(c, dy[0]!, bias!),
  ];
};

/** dX = Conv(dY, W), dW the same with the roles of X and dY exchanged, db = Σ dY. */
export const convTranspose: GradientRule = (context) => {
  const { x, dy, c } = context;
  const [input, weight, bias] = x as [string, string, string?];
  if (context.ints('output_shape')) {
    throw new Refusal('output_shape is not supported, only pads and output_padding');
  }
  const [window, group] = [convWindow(context, weight, dy[0]!), context.int('group', 1)];
  return [
    () => {
      const whole = c.op(
        'Conv',
        [dy[0]!, weight],
        openSizes(c, input),
        attributesOf(window, group),
      );
      return cutTo(c, whole, input, window.kernel);
    },
    () => weightGradient(c, dy[0]!, weight, input, window, group),
    () => biasGradient(c, dy[0]!, bias!),
  ];
};

function convWindow(context: RuleContext, weight: string, wide: string): Window {
  const kernel = context.c.staticShape(weight)?.slice(2);
  if (!kernel) throw new Refusal(`the shape of the kernel ${weight} is not static`);
  return windowOf(context, kernel, wide);
}

function attributesOf(window: Window, group: number): Attributes {
  const { kernel, strides, dilations, begin, end } = window;
  return {
    kernel_shape: { ints: kernel },
    strides: { ints: strides },
    dilations: { ints: dilations },
    pads: { ints: [...begin, ...end] },
    group: { int: group },
  };
}

/** The type of a value whose sizes after batch and channels are open. */
function openSizes(c: OpBuilder, like: string) {
  const { dtype, shape } = c.type(like);
  return { dtype, shape: shape?.map((dim, axis) => (axis < 2 ? dim : null)) ?? null };
}

/**
 * Adds dY, times the kernel, to where each window lay in `input`. The transposed convolution without
 * padding reaches over all windows; the input is the stretch of it after `begin`, with zeros where
 * the windows left its end unread.
 */
export function scatterWindows(
  c: OpBuilder,
  input: string,
  weight: string,
  dy: string,
  window: Window,
  group: number,
): string {
  const { kernel, strides, dilations, begin, end } = window;
  const nothing = kernel.map(() => 0);
  const unpadded = attributesOf({ ...window, begin: nothing, end: nothing }, group);
  const whole = c.op('ConvTranspose', [dy, weight], openSizes(c, input), unpadded);
  const exact = strides.every((stride) => stride === 1);
  if (exact && [...begin, ...end].every((size) => size === 0)) {
    return c.reshapeLike(whole, input);
  }
  // A window that the stride leaves no room for, and what a negative pad cut off, stay unread.
  const unread = strides.map((stride, i) => stride + dilations[i]! + Math.max(0, -end[i]!));
  const cut = begin.map((size) => Math.max(0, -size));
  const padded = pad(c, whole, [0, 0, ...cut, 0, 0, ...unread]);
  return cutTo(
    c,
    padded,
    input,
    kernel,
    begin.map((size) => Math.max(0, size)),
  );
}

function pad(c: OpBuilder, value: string, amounts: readonly number[]): string {
  const type = openSizes(c, value);
  if (c.graph.opset >= 11) return c.op('Pad', [value, c.integers(amounts)], type);
  return c.op('Pad', [value], type, { pads: { ints: amounts } });
}

/** The stretch of a value, after batch and channels, that has the sizes of another. */
function cutTo(
  c: OpBuilder,
  value: string,
  like: string,
  kernel: readonly number[],
  starts: readonly number[] = kernel.map(() => 0),
): string {
  const axes = kernel.map((_, i) => 2 + i);
  const first = c.integers(starts);
  const sizes = c.sizesOf(like, axes);
  const known = c.constant(sizes);
  const ends = known
    ? c.integers(known.map((size, i) => size + starts[i]!))
    : c.op('Add', [first, sizes], { dtype: 'int64', shape: [axes.length] });
  return c.op('Slice', [value, first, ends, c.integers(axes)], c.type(like));
}

/**
 * dW[o, i, k] = Σ over batch and places of dY[o, place] · X[i, place·stride + k·dilation - pad]: a
 * convolution of X with dY for a kernel, channels taken for batch and the batch for channels,
 * strides for dilations and dilations for strides. X [N, G·I, ..] of G groups goes in as [I, G·N, ..].
 */
function weightGradient(
  c: OpBuilder,
  input: string,
  weight: string,
  dy: string,
  window: Window,
  group: number,
): string {
  const { kernel, strides, dilations, begin, end } = window;
  const [outs, ins] = c.staticShape(weight) as [number, number];
  const places = kernel.map((_, i) => 2 + i);
  const swap = [1, 0, ...places];
  const found = c.op(
    'Conv',
    [batchAsChannels(c, input, ins, group), c.transpose(dy, swap)],
    { dtype: c.type(weight).dtype, shape: [ins, outs, ...kernel.map(() => null)] },
    {
      strides: { ints: dilations },
      dilations: { ints: strides },
      pads: { ints: [...begin, ...end] },
      group: { int: group },
    },
  );
  // A stride that does not divide leaves places after the kernel's last one.
  const bounds = [kernel.map(() => 0), kernel, places].map((list) => c.integers(list));
  return c.op('Slice', [c.transpose(found, swap), ...bounds], c.type(weight));
}

/** [N, G·I, ..] as [I, G·N, ..] */
function batchAsChannels(c: OpBuilder, value: string, ins: number, group: number): string {
  const [batch, , ...sizes] = c.dims(value);
  const places = sizes.map((_, i) => 2 + i);
  if (group === 1) return c.transpose(value, [1, 0, ...places]);
  const apart = [c.sizesOf(value, [0]), c.integers([group, ins]), c.sizesOf(value, places)];
  const split = c.reshape(value, c.concat(apart, 0), [batch!, group, ins, ...sizes]);
  const transposed = c.transpose(split, [2, 1, 0, ...places.map((axis) => axis + 1)]);
  const count = typeof batch === 'number' ? group * batch : null;
  const merged = c.concat([c.integers([ins, count ?? -1]), c.sizesOf(value, places)], 0);
  return c.reshape(transposed, merged, [ins, count, ...sizes]);
}

function biasGradient(c: OpBuilder, dy: string, bias: string): string {
  const axes = c.axes(dy).filter((axis) => axis !== 1);
  return c.reshapeLike(c.reduceSum(dy, axes, false), bias);
}
