import {
  type AdapterOutputOptions,
  adapterOutputOptions,
} from '../../adapters/files/output-options.js';
import type { OptionsOf } from '../../options/option.js';
import { theNameOption } from './name.js';

export const extractOptions = { ...theNameOption, ...adapterOutputOptions };

/** Options of `extract`. */
export interface ExtractOptions
  extends AdapterOutputOptions,
    OptionsOf<typeof theNameOption>,
    OptionsOf<typeof extractOptions> {}
