import { option } from '../../options/option.js';
import { notNegative } from '../../options/schemas.js';
import type { Optimizer } from './optimizer.js';
import { lrOption, weightDecayOption } from './shared-options.js';

const options = {
  ...lrOption(5e-4),
  ...weightDecayOption,
  /** Of SGD; default 0.9. */
  momentum: option(notNegative, {
    group: 'Optimizer',
    value: 'SHARE',
    default: 0.9,
    summary: 'share of the last step that the next one keeps',
    example: '--optimizer sgd --momentum 0',
  }),
};

/** torch.optim.SGD: g' = g + λ·θ, m' = μ·m + g', θ' = θ - lr·m' */
export const sgd: Optimizer<'sgd', 'm', never, typeof options> = {
  name: 'sgd',
  summary: 'SGD with momentum',
  options,
  moments: ({ momentum }) => (momentum === 0 ? [] : ['m']),
  scalars: () => ({}),
  update({ add, sub, mul, scale, each, decay }, x, { weightDecay, momentum }) {
    const full = weightDecay === 0 ? x.g : add(x.g, decay(x.theta, weightDecay));
    const m = momentum === 0 ? full : add(scale(x.m, momentum), full);
    return { theta: sub(x.theta, mul(each(x.lr), m)), m };
  },
};
