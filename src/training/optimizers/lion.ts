import type { Optimizer } from './optimizer.js';
import { betasOption, lrOption, weightDecayOption } from './shared-options.js';

const options = {
  // Each element moves by all of lr, where AdamW moves most by less: the paper takes a third to a tenth.
  ...lrOption(1e-4),
  ...weightDecayOption,
  ...betasOption([0.9, 0.99]),
};

/**
 * Lion (arXiv 2302.06675), with decoupled weight decay:
 * θ' = θ·(1 - lr·λ) - lr · sign(β1·m + (1-β1)·g), m' = β2·m + (1-β2)·g
 */
export const lion: Optimizer<'lion', 'm', never, typeof options> = {
  name: 'lion',
  summary:
    'Lion, which moves every number by the learning rate and uses only the sign of the average gradient',
  options,
  moments: () => ['m'],
  scalars: () => ({}),
  update({ add, sub, mul, sign, scale, each, decayed }, x, { betas: [beta1, beta2], weightDecay }) {
    const mixed = add(scale(x.m, beta1), scale(x.g, 1 - beta1));
    return {
      theta: sub(decayed(x.theta, x.lr, weightDecay), mul(sign(mixed), each(x.lr))),
      m: add(scale(x.m, beta2), scale(x.g, 1 - beta2)),
    };
  },
};
