/** Options that several optimizers bring; defaults are their own. */
import type { GenericSchema } from 'valibot';
import { option } from '../../options/option.js';
import { notNegative, pair, positive, share } from '../../options/schemas.js';

export const lrOption = (byDefault: number) => ({
  /** The highest learning rate; default 5e-4, for Lion 1e-4. */
  lr: option(positive, {
    group: 'Optimizer',
    value: 'RATE',
    default: byDefault,
    summary: 'peak learning rate',
    example: '--lr 1e-3',
  }),
});

// A list of another length is refused, though its type would do.
const twoShares = pair(share) as unknown as GenericSchema<
  readonly number[],
  readonly [number, number]
>;

export const betasOption = (byDefault: readonly [number, number]) => ({
  /** Of AdamW, default 0.9 and 0.999; of Lion, default 0.9 and 0.99. */
  betas: option(twoShares, {
    group: 'Optimizer',
    value: 'B1 B2',
    default: byDefault,
    summary:
      'how much moving averages keep at each step: adamw of the gradient and of its square, lion for the step and for what it keeps',
    example: '--betas 0.9 0.95',
  }),
});

export const weightDecayOption = {
  /** Default 0.01. */
  weightDecay: option(notNegative, {
    group: 'Optimizer',
    value: 'RATE',
    default: 0.01,
    summary: 'weight decay: decoupled from the gradient, but added to it by sgd',
    example: '--weight-decay 0',
  }),
};
