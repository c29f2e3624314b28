/** Options of how the adapters of a file find their layers. */
import { type OptionsOf, option } from '../../options/option.js';
import { text, toggle } from '../../options/schemas.js';

export const bindOptions = {
  /** `OLD=NEW`: module paths that begin with OLD begin with NEW in the model. Default: as they fit. */
  peftPrefix: option(text, {
    group: 'Adapters',
    value: 'OLD=NEW',
    defaultText: 'as they fit',
    summary: 'module paths of the adapters that begin with OLD begin with NEW in the model',
    example: '--peft-prefix bert=auto_model',
  }),
  /** Leave out adapters that match no layer instead of refusing all of them. */
  allowUnmatched: option(toggle, {
    group: 'Adapters',
    default: false,
    summary: 'leave out and name adapters of the file that match no layer, instead of failing',
    example: '--allow-unmatched',
  }),
};

/** Options of finding the layers that adapters of a file belong to. */
export interface BindOptions extends OptionsOf<typeof bindOptions> {}
