/** Normalizations with a scale and a shift for each channel (axis 1). */
import type { Calculus } from '../calculus.js';
import type { GradientRule } from '../rule.js';
import { once } from './normalization.js';

/** A value of shape [C] as [C, 1, ..], to go with [N, C, ..]. */
function perChannel(c: Calculus, value: string, rank: number): string {
  const size = c.shape(value)?.[0] ?? null;
  const ones = Array<number>(rank - 2).fill(1);
  return c.reshape(value, c.integers([-1, ...ones]), [size, ...ones]);
}

function rankOf(c: Calculus, value: string): number {
  const rank = c.rank(value);
  if (rank === undefined) throw new Error(`the rank of ${value} is not known`);
  return rank;
}

function channelSum(c: Calculus, value: string, like: string): string {
  const axes = Array.from({ length: rankOf(c, value) }, (_, i) => i).filter((axis) => axis !== 1);
  return c.reshapeLike(c.reduceSum(value, axes, false), like);
}

/** With recorded mean and variance it is a scale and a shift. */
export const batchNormalization: GradientRule = ({ x, dy: [dy], c, float, int }) => {
  const [input, scale, shift, mean, variance] = x as [string, string, string, string, string];
  if (int('training_mode', 0) !== 0)
    throw new Error('BatchNormalization in training mode has no gradient rule');
  const rank = rankOf(c, input);
  const inverse = once(() => {
    const spread = c.add(variance, c.number(variance, float('epsilon', 1e-5)));
    return c.unary('Reciprocal', c.unary('Sqrt', spread));
  });
  const normalized = () => {
    const centered = c.sub(input, perChannel(c, mean, rank));
    return c.mul(centered, perChannel(c, inverse(), rank));
  };
  return [
    () => c.mul(dy!, perChannel(c, c.mul(scale, inverse()), rank)),
    () => channelSum(c, c.mul(dy!, normalized()), scale),
    () => channelSum(c, dy!, shift),
  ];
};

/** n = (x - mean) / std over the places of each channel of each sample. */
export const instanceNormalization: GradientRule = ({ x, dy: [dy], c, float }) => {
  const [input, scale, shift] = x as [string, string, string];
  const rank = rankOf(c, input);
  const places = Array.from({ length: rank - 2 }, (_, i) => 2 + i);
  const mean = (value: string) => c.reduce('ReduceMean', value, places);
  const normalized = once(() => {
    const centered = c.sub(input, mean(input));
    const variance = mean(c.square(centered));
    const spread = c.add(variance, c.number(variance, float('epsilon', 1e-5)));
    const inverse = c.unary('Reciprocal', c.unary('Sqrt', spread));
    return { inverse, n: c.mul(centered, inverse) };
  });
  return [
    () => {
      const { n, inverse } = normalized();
      const g = c.mul(dy!, perChannel(c, scale, rank));
      const bent = c.mul(n, mean(c.mul(g, n)));
      return c.mul(c.sub(c.sub(g, mean(g)), bent), inverse);
    },
    () => channelSum(c, c.mul(dy!, normalized().n), scale),
    () => channelSum(c, dy!, shift),
  ];
};

/** x where positive, slope · x where negative. */
export const prelu: GradientRule = ({ x: [x, slope], dy: [dy], c }) => {
  const negative = once(() => c.compare('Less', x!, c.number(x!, 0)));
  return [
    () => c.sumTo(c.mul(dy!, c.where(negative(), slope!, c.number(x!, 1))), x!),
    () => c.sumTo(c.where(negative(), c.mul(dy!, x!), c.number(x!, 0)), slope!),
  ];
};

/** y = x / |x| over an axis: dx = (dy - y · Σ dy·y) / |x| for the 2-norm, sign(x) for y in the sum for the 1-norm. */
export const lpNormalization: GradientRule = ({ x: [x], y: [y], dy: [dy], c, int }) => [
  () => {
    const axes = [int('axis', -1)];
    const p = int('p', 2);
    const size = c.reduce(p === 1 ? 'ReduceL1' : 'ReduceL2', x!, axes);
    const along = c.reduceSum(c.mul(dy!, y!), axes);
    const direction = p === 1 ? c.sign(x!) : y!;
    return c.div(c.sub(dy!, c.mul(direction, along)), size);
  },
];
