/** Options that several losses have. */
import { DEFAULT_IGNORE_INDEX } from '../../data/ignore-index.js';
import { option, type ResolvedOf } from '../../options/option.js';
import { list, notNegative, share, whole } from '../../options/schemas.js';

export const ignoreIndexOption = {
  /** Of losses of classes, and of kl: labels with this value do not count; default -100. */
  ignoreIndex: option(whole(-(2 ** 31), 2 ** 31 - 1), {
    group: 'Loss',
    value: 'N',
    default: DEFAULT_IGNORE_INDEX,
    summary: 'labels with this value do not count',
    example: '--ignore-index -1',
  }),
};

export const classWeightsOption = {
  /** A weight for each class; the mean is weighted. */
  classWeights: option(list(notNegative), {
    group: 'Loss',
    value: 'WEIGHT',
    summary: 'a weight for each class, in their order',
    example: '--class-weights 1 --class-weights 5',
  }),
};

export const smoothingOption = {
  /** The share of the target that is spread over all classes, for bce over yes and no; default 0. */
  labelSmoothing: option(share, {
    group: 'Loss',
    value: 'SHARE',
    default: 0,
    summary: 'share of the target that is spread over all answers',
    example: '--label-smoothing 0.1',
  }),
};

export const classOptions = { ...ignoreIndexOption, ...classWeightsOption };

/** Options of the cross-entropy of classes, with their defaults. */
export type ClassOptions = ResolvedOf<typeof classOptions & typeof smoothingOption>;
