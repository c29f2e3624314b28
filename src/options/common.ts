/** Options that commands of all kinds have. */
import { option } from './option.js';
import { whole } from './schemas.js';

export const DEFAULT_SEED = 0;

export const seedOption = {
  /** Seed of everything random; default 0. */
  seed: option(whole(), {
    group: 'General',
    value: 'N',
    default: DEFAULT_SEED,
    summary: 'seed of everything random',
    example: '--seed 42',
  }),
};
