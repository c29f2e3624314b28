/** com.microsoft operators that fuse an addition with what follows. */
import type { OpBuilder } from '../op-builder.js';
import { type GradientRule, ofOutputs, type RuleContext } from '../rule.js';
import { erfGeluSlope, tanhGeluSlope } from './activations.js';
import {
  byRootMeanSquare,
  layerNormalized,
  type Normalized,
  throughNormalization,
} from './normalization.js';

/** A function of x + b, b optional. */
function biased(slope: (c: OpBuilder, x: string) => string): GradientRule {
  return ({ x: [x, bias], dy: [dy], c }) => {
    const gradient = () => c.mul(dy!, slope(c, bias ? c.add(x!, bias) : x!));
    return [gradient, () => c.sumTo(gradient(), bias!)];
  };
}

export const fastGelu = biased(tanhGeluSlope);
export const biasGelu = biased(erfGeluSlope);

type Normalize = (c: OpBuilder, x: string, axes: readonly number[], epsilon: number) => Normalized;

/** Inputs: x, skip, scale, the normalization's own bias where it has one, and a bias of the sum. */
function skipNormalization(normalize: Normalize, hasShift: boolean): GradientRule {
  // The statistics, its second and third output, no CPU kernel gives.
  return ofOutputs([0, 3], (context) => {
    const { x, dy, c, float } = context;
    const [input, skip, scale] = x as [string, string, string];
    const bias = x[hasShift ? 4 : 3];
    const axes = [c.rank(input) - 1];
    const norm = () => normalize(c, skipSum(context, bias), axes, float('epsilon', 1e-12));
    const total = () => {
      // Nobody may look at the normalized output, or at the sum.
      const fromSum = dy[3] ?? '';
      if (!dy[0]) return fromSum;
      const gradient = throughNormalization(c, c.mul(dy[0], scale), norm(), axes);
      return fromSum ? c.add(gradient, fromSum) : gradient;
    };
    const ownShift = () => (dy[0] ? c.sumTo(dy[0], x[3]!) : c.zeros(x[3]!));
    return [
      () => c.sumTo(total(), input),
      () => c.sumTo(total(), skip),
      () => (dy[0] ? c.sumTo(c.mul(dy[0], norm().value), scale) : c.zeros(scale)),
      ...(hasShift ? [ownShift] : []),
      () => c.sumTo(total(), bias!),
    ];
  });
}

/** x + skip + bias, which the fourth output is. */
function skipSum({ x, y, c }: RuleContext, bias: string | undefined): string {
  if (y[3]) return y[3];
  const sum = c.add(x[0]!, x[1]!);
  return bias ? c.add(sum, bias) : sum;
}

/** LayerNormalization of x + skip + bias. */
export const skipLayerNormalization = skipNormalization(layerNormalized, true);

/** The same with the root mean square. */
export const skipSimplifiedLayerNormalization = skipNormalization(byRootMeanSquare, false);
