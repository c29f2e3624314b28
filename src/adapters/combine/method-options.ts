import { seedOption } from '../../options/common.js';
import { type OptionsOf, option, restricted } from '../../options/option.js';
import { choice, part, whole } from '../../options/schemas.js';
import { DEFAULT_BLOCKS, structures } from '../structure/structure.js';

/** Options of how the changes of several adapters become one. */
export const methodOptions = {
  /** The share of numbers that `ties` and `dare` keep, above 0 and at most 1. */
  density: option(part, {
    group: 'Adapters',
    value: 'SHARE',
    only: { method: ['ties', 'dare'] },
    summary: 'share of each change that is kept; needed',
    example: '--method ties --density 0.2',
  }),
  /** R of the result. Default: the highest of the adapters. */
  rank: option(whole(1), {
    group: 'Adapters',
    value: 'R',
    only: { method: ['svd', 'ties', 'dare'] },
    defaultText: 'the highest of the adapters',
    summary: 'rank of the result',
    example: '--method svd --rank 8',
  }),
  /** Structure of the result. Default: that of a layer's adapters where they are alike, else `global`. */
  structure: option(choice(structures), {
    group: 'Adapters',
    value: 'NAME',
    only: { method: ['svd', 'ties', 'dare'] },
    defaultText: 'their own where alike, else global',
    summary: 'structure of the result',
    example: '--method svd --structure localized --rank 16',
  }),
  /** K for that structure; default 4. */
  blocks: option(whole(1), {
    group: 'Adapters',
    value: 'K',
    only: { structure: ['localized', 'diagonal'] },
    default: DEFAULT_BLOCKS,
    summary: 'most blocks along a dimension',
    example: '--structure localized --blocks 2',
  }),
  ...restricted(seedOption, { only: { method: ['dare'] } }),
};

/** Options of the ways to combine adapter sets. */
export interface MethodOptions
  extends OptionsOf<typeof seedOption>,
    OptionsOf<typeof methodOptions> {}
