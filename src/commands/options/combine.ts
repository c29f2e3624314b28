import { type MethodOptions, methodOptions } from '../../adapters/combine/method-options.js';
import {
  type AdapterOutputOptions,
  adapterOutputOptions,
} from '../../adapters/files/output-options.js';
import { combineMethods } from '../../adapters/structure/choices.js';
import { type OptionsOf, option } from '../../options/option.js';
import { choice, list, number, text } from '../../options/schemas.js';

export const combineOptions = {
  /** One for each adapter set. Default: 1 each. */
  weights: option(list(number), {
    group: 'Adapters',
    value: 'W',
    list: true,
    defaultText: '1 each',
    summary: 'factor for the changes of each adapter set, in their order',
    example: '--weights 0.5 0.5',
  }),
  /** The way to sum up the changes; default `linear`, the exact sum. */
  method: option(choice(combineMethods), {
    group: 'Adapters',
    value: 'NAME',
    default: 'linear',
    summary: 'how the changes are summed up',
    example: '--method svd --rank 16',
  }),
  ...methodOptions,
  /** Name of the new set. Default `combined`; of one adapter set alone, its own. */
  name: option(text, {
    group: 'Adapters',
    value: 'NAME',
    defaultText: 'combined',
    summary: 'name of the new set',
    example: '--name both',
  }),
  ...adapterOutputOptions,
};

/** Options of `combine`. */
export interface CombineOptions
  extends MethodOptions,
    AdapterOutputOptions,
    OptionsOf<typeof combineOptions> {}
