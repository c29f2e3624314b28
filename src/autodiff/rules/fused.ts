/** com.microsoft operators that fuse an addition with what follows. */
import type { Calculus } from '../calculus.js';
import type { GradientRule, InputGradient, RuleContext } from '../rule.js';
import { erfGeluSlope, tanhGeluSlope } from './activations.js';
import { layerNormGradients, once, rmsNormGradients } from './normalization.js';

/** A function of x + b, b optional. */
function biased(slope: (c: Calculus, x: string) => string): GradientRule {
  return ({ x: [x, bias], dy: [dy], c }) => {
    const gradient = once(() => c.mul(dy!, slope(c, bias ? c.add(x!, bias) : x!)));
    return [() => gradient(), () => c.sumTo(gradient(), bias!)];
  };
}

export const fastGelu = biased(tanhGeluSlope);
export const biasGelu = biased(erfGeluSlope);

/** LayerNormalization of input + skip + bias; the fourth output is that sum. */
export const skipLayerNormalization: GradientRule = (context) => {
  const { x, dy, c, float } = context;
  const [, , gamma, beta, bias] = x as [string, string, string, string?, string?];
  const sum = once(() => skipSum(context, bias));
  const parts = once(() =>
    layerNormGradients(c, sum(), gamma, dy[0]!, [-1], float('epsilon', 1e-12)),
  );
  const total = once(() => withSumOutput(c, parts().input(), dy[3]));
  return [
    ...skipInputs(context, total),
    () => parts().scale(),
    () => c.sumTo(dy[0]!, beta!),
    () => c.sumTo(total(), bias!),
  ];
};

/** The same with the root mean square. */
export const skipSimplifiedLayerNormalization: GradientRule = (context) => {
  const { x, dy, c, float } = context;
  const [, , gamma, bias] = x as [string, string, string, string?];
  const sum = once(() => skipSum(context, bias));
  const parts = once(() =>
    rmsNormGradients(c, sum(), gamma, dy[0]!, [-1], float('epsilon', 1e-12)),
  );
  const total = once(() => withSumOutput(c, parts().input(), dy[3]));
  return [...skipInputs(context, total), () => parts().scale(), () => c.sumTo(total(), bias!)];
};

function skipInputs({ x, c }: RuleContext, total: () => string): InputGradient[] {
  return [() => c.sumTo(total(), x[0]!), () => c.sumTo(total(), x[1]!)];
}

function skipSum({ x, y, c }: RuleContext, bias: string | undefined): string {
  if (y[3]) return y[3];
  const sum = c.add(x[0]!, x[1]!);
  return bias ? c.add(sum, bias) : sum;
}

function withSumOutput(c: Calculus, gradient: string, dySum: string | undefined): string {
  return dySum ? c.add(gradient, dySum) : gradient;
}
