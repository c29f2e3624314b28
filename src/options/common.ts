/** Options that commands of all kinds have. */
import { option } from './option.js';
import { whole } from './schemas.js';

export const seedOption = {
  /** Seed of everything random; default 0. */
  seed: option(whole(), {
    group: 'General',
    value: 'N',
    default: 0,
    summary: 'seed of everything random',
    example: '--seed 42',
  }),
};
