/** Conv and ConvTranspose: each is the other's gradient with respect to its input. */
import type { Attributes } from '../../graph/builder.js';
import type { Calculus } from '../calculus.js';
import type { GradientRule, RuleContext } from '../rule.js';

/** Strides, dilations, pads and groups of a convolution over `rank` axes. */
interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly begin: readonly number[];
  readonly end: readonly number[];
  readonly group: number;
}

/**
 * dX = ConvTranspose(dY, W), dW = Conv of X with dY over the batch, db = Σ dY. A convolution can
 * leave the last rows of its input unread: they get zeros from the transposed one's output padding.
 */
export const conv: GradientRule = (context) => {
  const { x, dy, c } = context;
  const [input, weight, bias] = x as [string, string, string?];
  const window = windowOf(context, weight, input);
  return [
    () => inputGradient(c, input, weight, dy[0]!, window),
    () => weightGradient(c, input, weight, dy[0]!, window),
    bias === undefined ? undefined : () => biasGradient(c, dy[0]!, bias),
  ];
};

/** dX = Conv(dY, W), dW the same with the roles of X and dY exchanged, db = Σ dY. */
export const convTranspose: GradientRule = (context) => {
  const { x, dy, c } = context;
  const [input, weight, bias] = x as [string, string, string?];
  const window = windowOf(context, weight, dy[0]!);
  return [
    () => c.op('Conv', [dy[0]!, weight], c.type(input), attributesOf(window)),
    () => weightGradient(c, dy[0]!, weight, input, window),
    bias === undefined ? undefined : () => biasGradient(c, dy[0]!, bias),
  ];
};

function windowOf(context: RuleContext, weight: string, wide: string): Window {
  const { c, int, ints, text } = context;
  const kernel = c.staticShape(weight)?.slice(2);
  if (!kernel) throw new Error(`the kernel of ${weight} is not known`);
  const ones = kernel.map(() => 1);
  const strides = ints('strides') ?? ones;
  const dilations = ints('dilations') ?? ones;
  const pads = automaticPads(c, text('auto_pad', 'NOTSET'), wide, kernel, strides, dilations);
  const all = pads ?? ints('pads') ?? kernel.flatMap(() => [0, 0]);
  const begin = all.slice(0, kernel.length);
  return {
    kernel,
    strides,
    dilations,
    begin,
    end: all.slice(kernel.length),
    group: int('group', 1),
  };
}

/** What `auto_pad` stands for, which for SAME needs the size of the input. */
function automaticPads(
  c: Calculus,
  mode: string,
  wide: string,
  kernel: readonly number[],
  strides: readonly number[],
  dilations: readonly number[],
): number[] | undefined {
  if (mode === 'NOTSET' || mode === '') return undefined;
  if (mode === 'VALID') return kernel.flatMap(() => [0, 0]);
  const totals = kernel.map((size, i) => {
    const reach = (size - 1) * dilations[i]! + 1;
    const length = c.shape(wide)?.[2 + i];
    if (strides[i] === 1) return reach - 1;
    if (typeof length !== 'number') throw new Error(`auto_pad needs the size of ${wide}`);
    const outputs = Math.ceil(length / strides[i]!);
    return Math.max(0, (outputs - 1) * strides[i]! + reach - length);
  });
  const first = totals.map((total) =>
    mode === 'SAME_LOWER' ? Math.ceil(total / 2) : Math.floor(total / 2),
  );
  return [...first, ...totals.map((total, i) => total - first[i]!)];
}

function attributesOf(window: Window): Attributes {
  const { kernel, strides, dilations, begin, end, group } = window;
  return {
    kernel_shape: { ints: kernel },
    strides: { ints: strides },
    dilations: { ints: dilations },
    pads: { ints: [...begin, ...end] },
    group: { int: group },
  };
}

/**
 * The transposed convolution without its padding gives [.., (out - 1)·stride + reach]; the input is
 * the stretch of it behind `begin`, with zeros behind where the convolution left rows unread.
 */
function inputGradient(
  c: Calculus,
  input: string,
  weight: string,
  dy: string,
  window: Window,
): string {
  const { kernel, strides, dilations, begin, end, group } = window;
  const shape = c.shape(input);
  const unpadded = { ...window, begin: kernel.map(() => 0), end: kernel.map(() => 0), group };
  const whole = c.op(
    'ConvTranspose',
    [dy, weight],
    { dtype: c.type(input).dtype, shape: null },
    attributesOf(unpadded),
  );
  const exact = strides.every((stride) => stride === 1);
  if (exact && begin.every((p) => p === 0) && end.every((p) => p === 0)) {
    return c.op('Identity', [whole], c.type(input));
  }
  // Zeros enough for what a stride can leave unread, then the input's own stretch.
  const rank = kernel.length;
  const zeros = [
    ...Array(2 + rank + 2).fill(0),
    ...strides.map((stride, i) => stride + Math.max(0, end[i]!) + dilations[i]!),
  ];
  const padded = pad(c, whole, zeros);
  const axes = kernel.map((_, i) => 2 + i);
  const sizes = shapePart(c, input, 2, 2 + rank);
  const starts = c.integers(begin);
  const ends = c.op('Add', [starts, sizes], { dtype: 'int64', shape: [rank] });
  return c.op('Slice', [padded, starts, ends, c.integers(axes)], {
    dtype: c.type(input).dtype,
    shape,
  });
}

function pad(c: Calculus, value: string, amounts: readonly number[]): string {
  const { dtype } = c.type(value);
  if (c.graph.opset >= 11) return c.op('Pad', [value, c.integers(amounts)], { dtype, shape: null });
  return c.op('Pad', [value], { dtype, shape: null }, { pads: { ints: amounts } });
}

function shapePart(c: Calculus, value: string, start: number, end: number): string {
  const known = c.shape(value)?.slice(start, end);
  if (known?.every((dim) => typeof dim === 'number')) return c.integers(known as number[]);
  const whole = c.op('Shape', [value], { dtype: 'int64', shape: [c.rank(value) ?? null] });
  const bounds = [c.integers([start]), c.integers([end])];
  return c.op('Slice', [whole, ...bounds], { dtype: 'int64', shape: [end - start] });
}

/**
 * dW[o, i, k] = Σ over batch and places of dY[o, place] · X[i, place·stride + k·dilation - pad]: a
 * convolution of X with dY for a kernel, channels taken for batch and the batch for channels,
 * strides for dilations and dilations for strides. Groups are convolutions side by side.
 */
function weightGradient(
  c: Calculus,
  input: string,
  weight: string,
  dy: string,
  window: Window,
): string {
  const { kernel, strides, dilations, begin, end, group } = window;
  const rank = kernel.length;
  const swap = [1, 0, ...kernel.map((_, i) => 2 + i)];
  const { dtype, shape } = c.type(weight);
  const [outs, ins] = [shape![0] as number, shape![1] as number];
  const parts = Array.from({ length: group }, (_, g) => {
    const xs = channels(c, input, g, ins, group);
    const ys = channels(c, dy, g, outs / group, group);
    const found = c.op(
      'Conv',
      [c.transpose(xs, swap), c.transpose(ys, swap)],
      { dtype, shape: null },
      {
        strides: { ints: dilations },
        dilations: { ints: strides },
        pads: { ints: [...begin, ...end] },
      },
    );
    const turned = c.op('Transpose', [found], { dtype, shape: null }, { perm: { ints: swap } });
    // A stride that does not divide leaves places behind the kernel's last one.
    const axes = kernel.map((_, i) => 2 + i);
    const zeros = c.integers(Array(rank).fill(0));
    const type = { dtype, shape: [outs / group, ins, ...kernel] };
    return c.op('Slice', [turned, zeros, c.integers(kernel), c.integers(axes)], type);
  });
  if (parts.length === 1) return parts[0]!;
  return c.op('Concat', parts, { dtype, shape }, { axis: { int: 0 } });
}

function channels(c: Calculus, value: string, g: number, count: number, groups: number): string {
  if (groups === 1) return value;
  const { dtype, shape } = c.type(value);
  const bounds = [c.integers([g * count]), c.integers([(g + 1) * count]), c.integers([1])];
  const part = shape ? [shape[0]!, count, ...shape.slice(2)] : null;
  return c.op('Slice', [value, ...bounds], { dtype, shape: part });
}

function biasGradient(c: Calculus, dy: string, bias: string): string {
  const rank = c.rank(dy);
  if (rank === undefined) throw new Error(`the rank of ${dy} is not known`);
  const axes = Array.from({ length: rank }, (_, i) => i).filter((axis) => axis !== 1);
  return c.reshapeLike(c.reduceSum(dy, axes, false), bias);
}
