import type { Optimizer } from './optimizer.js';

/** torch.optim.SGD: g' = g + λ·θ, m' = μ·m + g', θ' = θ - lr·m' */
export const sgd: Optimizer<'sgd', 'm', never> = {
  name: 'sgd',
  summary: 'SGD with momentum',
  defaults: { lr: 5e-4, momentum: 0.9 },
  moments: ({ momentum }) => (momentum === 0 ? [] : ['m']),
  scalars: () => ({}),
  update({ add, sub, mul, scale, each, decay }, x, { weightDecay, momentum }) {
    const full = weightDecay === 0 ? x.g : add(x.g, decay(x.theta, weightDecay));
    const m = momentum === 0 ? full : add(scale(x.m, momentum), full);
    return { theta: sub(x.theta, mul(each(x.lr), m)), m };
  },
};
