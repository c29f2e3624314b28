import { option } from '../../options/option.js';
import { positive } from '../../options/schemas.js';
import type { Optimizer } from './optimizer.js';
import { stepNumbers } from './scalars.js';
import { betasOption, lrOption, weightDecayOption } from './shared-options.js';

const options = {
  ...lrOption(5e-4),
  ...weightDecayOption,
  ...betasOption([0.9, 0.999]),
  /** Of AdamW; default 1e-8. */
  eps: option(positive, {
    group: 'Optimizer',
    value: 'EPS',
    default: 1e-8,
    summary: 'epsilon, against division by zero',
    example: '--eps 1e-6',
  }),
};

/**
 * Adam with decoupled weight decay (arXiv 1711.05101):
 * m' = β1·m + (1-β1)·g, v' = β2·v + (1-β2)·g²,
 * θ' = θ·(1 - lr·λ) - lr · (m'/c1) / (√(v'/c2) + ε), c = 1 - β^t
 */
export const adamW: Optimizer<'adamw', 'm' | 'v', 'correction1' | 'correction2', typeof options> = {
  name: 'adamw',
  summary: 'Adam with decoupled weight decay',
  options,
  moments: () => ['m', 'v'],
  scalars(options) {
    const { correction1, correction2 } = stepNumbers(options);
    return { correction1, correction2 };
  },
  update(math, x, { betas, eps, weightDecay }) {
    const { number, add, sub, mul, div, sqrt, scale, each, decayed } = math;
    const m = add(scale(x.m, betas[0]), scale(x.g, 1 - betas[0]));
    const v = add(scale(x.v, betas[1]), scale(mul(x.g, x.g), 1 - betas[1]));
    // Scalars are combined first: a pass over the vector less.
    const rate = each(div(x.lr, x.correction1));
    const root = sqrt(div(v, x.correction2));
    const step = div(mul(m, rate), add(root, number(eps)));
    return { theta: sub(decayed(x.theta, x.lr, weightDecay), step), m, v };
  },
};
