import { adapterOutputOptions } from '../../adapters/files/output-options.js';
import type { OptionsOf } from '../../options/option.js';
import { theNameOption } from './name.js';

export const extractOptions = { ...theNameOption, ...adapterOutputOptions };

export interface ExtractOptions extends OptionsOf<typeof extractOptions> {}
