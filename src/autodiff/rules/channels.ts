/** Normalizations and activations with numbers for each channel (axis 1). */
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { GradientRule, RuleContext } from '../rule.js';
import { negative } from './activations.js';
import { standardized, throughNormalization } from './normalization.js';
import { nonZero } from './reduction.js';

/** A value of shape [C] as [C, 1, ..], to go with [N, C, ..]. */
function perChannel(c: OpBuilder, value: string, like: string): string {
  const [size] = c.dims(value);
  const ones = c
    .axes(like)
    .slice(2)
    .map(() => 1);
  return c.reshape(value, c.integers([-1, ...ones]), [size!, ...ones]);
}

function channelSum(c: OpBuilder, value: string, like: string): string {
  const axes = c.axes(value).filter((axis) => axis !== 1);
  return c.reshapeLike(c.reduceSum(value, axes, false), like);
}

/** With recorded mean and variance it is a scale and a shift: y = scale · (x - mean) / √(var + ε) + shift. */
export const batchNormalization: GradientRule = ({ x, dy: [dy], c, float, int }) => {
  const [input, scale, shift, mean, variance] = x as [string, string, string, string, string];
  if (int('training_mode', 0) !== 0) {
    throw new Refusal(
      'it is in training mode: its statistics would move with every batch',
      'Export the model in evaluation mode.',
    );
  }
  const inverse = () => c.reciprocal(c.sqrt(c.shift(variance, float('epsilon', 1e-5))));
  const normalized = () => {
    const centered = c.sub(input, perChannel(c, mean, input));
    return c.mul(centered, perChannel(c, inverse(), input));
  };
  return [
    () => c.mul(dy!, perChannel(c, c.mul(scale, inverse()), input)),
    () => channelSum(c, c.mul(dy!, normalized()), scale),
    () => channelSum(c, dy!, shift),
    () => c.neg(c.mul(channelSum(c, dy!, mean), c.mul(scale, inverse()))),
    () => {
      const along = channelSum(c, c.mul(dy!, normalized()), variance);
      return c.scale(c.mul(along, c.mul(scale, c.square(inverse()))), -0.5);
    },
  ];
};

/** n = (x - mean) / std over the places of each channel of each sample. */
export const instanceNormalization: GradientRule = ({ x, dy: [dy], c, float }) => {
  const [input, scale, shift] = x as [string, string, string];
  const places = c.axes(input).slice(2);
  const norm = () => standardized(c, input, places, float('epsilon', 1e-5));
  return [
    () => throughNormalization(c, c.mul(dy!, perChannel(c, scale, input)), norm(), places),
    () => channelSum(c, c.mul(dy!, norm().value), scale),
    () => channelSum(c, dy!, shift),
  ];
};

/** n = (x - mean) / std over groups of channels and their places. */
export const groupNormalization: GradientRule = (context) => {
  const { x, dy, c, float } = context;
  const [input, scale, shift] = x as [string, string, string];
  const { grouped, axes } = groupsOf(context);
  const norm = () => standardized(c, grouped(input), axes, float('epsilon', 1e-5));
  const factor = () => perChannel(c, channelWise(context, scale), input);
  return [
    () => {
      const g = grouped(c.mul(dy[0]!, factor()));
      return c.reshapeLike(throughNormalization(c, g, norm(), axes), input);
    },
    () => groupSum(context, c.mul(dy[0]!, c.reshapeLike(norm().value, input)), scale),
    () => groupSum(context, dy[0]!, shift),
  ];
};

/** [N, C, ..] as [N, G, C/G, ..], and the axes of a group; [N, G, -1] where C is not known. */
function groupsOf({ x, c, int }: RuleContext) {
  const groups = int('num_groups', 1);
  const [batch, channels, ...places] = c.dims(x[0]!);
  if (typeof channels !== 'number') {
    const shape = c.integers([0, groups, -1]);
    return { grouped: (v: string) => c.reshape(v, shape, [batch!, groups, null]), axes: [2] };
  }
  const size = channels / groups;
  const grouped = (value: string) => {
    const around =
      places.length > 0
        ? [
            c.sizesOf(
              value,
              places.map((_, i) => i + 2),
            ),
          ]
        : [];
    const shape = [c.sizesOf(value, [0]), c.integers([groups, size]), ...around];
    return c.reshape(value, c.concat(shape, 0), [batch!, groups, size, ...places]);
  };
  return { grouped, axes: [2, ...places.map((_, i) => i + 3)] };
}

/** Before opset 21 there was one scale a group: [G] as [C]. */
function channelWise({ x, c, int }: RuleContext, scale: string): string {
  if (c.graph.opset >= 21) return scale;
  const [groups, channels] = [int('num_groups', 1), channelsOf(c, x[0]!)];
  const { dtype } = c.type(scale);
  const size = channels / groups;
  const wide = c.op('Expand', [c.unsqueeze(scale, [1]), c.integers([groups, size])], {
    dtype,
    shape: [groups, size],
  });
  return c.flat(wide);
}

/** Σ over all but the channels, or over all but the groups. */
function groupSum({ x, c, int }: RuleContext, value: string, like: string): string {
  if (c.graph.opset >= 21) return channelSum(c, value, like);
  const [groups, channels] = [int('num_groups', 1), channelsOf(c, x[0]!)];
  const axes = c.axes(value).filter((axis) => axis !== 1);
  const sums = c.reduceSum(value, axes, false);
  const shape = [groups, channels / groups];
  return c.reduceSum(c.reshape(sums, c.integers(shape), shape), [1], false);
}

function channelsOf(c: OpBuilder, x: string): number {
  const channels = c.dims(x)[1];
  if (typeof channels === 'number') return channels;
  throw new Refusal(`the number of channels of ${x} is not static`);
}

/** x where positive, slope · x where negative. */
export const prelu: GradientRule = ({ x: [x, slope], dy: [dy], c }) => [
  () => c.mul(dy!, c.where(negative(c, x!), slope!, c.number(x!, 1))),
  () => c.sumTo(c.masked(negative(c, x!), c.mul(dy!, x!)), slope!),
];

/** y = x / |x| over an axis: dx = (dy - d · Σ dy·y) / |x|, d = y for the 2-norm, sign(x) for the 1-norm. */
export const lpNormalization: GradientRule = ({ x: [x], y: [y], dy: [dy], c, int }) => [
  () => {
    const axes = [int('axis', -1)];
    const isOne = int('p', 2) === 1;
    const size = c.reduce(isOne ? 'ReduceL1' : 'ReduceL2', x!, axes);
    const along = c.mul(isOne ? c.sign(x!) : y!, c.reduceSum(c.mul(dy!, y!), axes));
    return c.div(c.sub(dy!, along), nonZero(c, size));
  },
];
