import {
  type AdapterOutputOptions,
  adapterOutputOptions,
} from '../../adapters/files/output-options.js';
import { fitStructures } from '../../adapters/structure/choices.js';
import { DEFAULT_RANK } from '../../adapters/structure/structure.js';
import { type Selection, selectionOptions } from '../../adapters/targets/selection-options.js';
import { seedOption } from '../../options/common.js';
import { type OptionsOf, option } from '../../options/option.js';
import { choice, share, toggle, whole } from '../../options/schemas.js';
import { newNameOption } from './name.js';

export const fitOptions = {
  ...selectionOptions,
  /** Patterns of the layers that take part; default `all`. */
  targets: option(selectionOptions.targets.schema, {
    ...selectionOptions.targets,
    default: ['all'],
  }),
  /** Default `auto`: the one that captures the most, for each layer. */
  structure: option(choice(fitStructures), {
    group: 'Adapters',
    value: 'NAME',
    default: 'auto',
    summary:
      'how the weight is divided into blocks; auto takes what captures the most, layer by layer',
    example: '--structure localized --blocks 4',
  }),
  /** K. Default: 2, 4 and 8 are tried where the structure is `auto`, else 4. */
  blocks: option(whole(1), {
    group: 'Adapters',
    value: 'K',
    except: { structure: ['global'] },
    defaultText: 'auto: 2, 4 and 8',
    summary: 'most blocks along a dimension',
    example: '--blocks 4',
  }),
  /** Every layer gets the parameters of a LoRA of this rank. Default 16, without budget or error. */
  rank: option(whole(1), {
    group: 'Adapters',
    value: 'R',
    notWith: ['budget', 'error'],
    defaultText: String(DEFAULT_RANK),
    summary: 'every layer gets the parameters of a plain LoRA of this rank',
    example: '--rank 8',
  }),
  /** The parameters of all layers together, given to those where they capture the most. */
  budget: option(whole(1), {
    group: 'Adapters',
    value: 'PARAMS',
    notWith: ['error'],
    summary:
      'instead of a rank: parameters of all layers together, spent where they capture the most',
    example: '--budget 500000',
  }),
  /** The fewest parameters with √(Σ|ΔW − fit|² / Σ|ΔW|²) ≤ error over all layers together. */
  error: option(share, {
    group: 'Adapters',
    value: 'E',
    summary:
      'instead of a rank: as few parameters as leave at most this share of the changes, |ΔW - fit| / |ΔW|',
    example: '--error 0.1',
  }),
  ...newNameOption,
  /** Takes tensors that changed and have no adapter into the file, as they are. */
  includeRest: option(toggle, {
    group: 'Adapters',
    default: false,
    summary: 'store what changed outside of linear layers in the file as well, as it is',
    example: '--include-rest',
  }),
  /** Writes a file without adapters where nothing changed, instead of throwing. */
  allowEmpty: option(toggle, {
    group: 'Check',
    default: false,
    summary: 'where nothing changed, write a file without adapters instead of failing',
    example: '--allow-empty',
  }),
  ...adapterOutputOptions,
  ...seedOption,
};

/** Options of `fit`. */
export interface FitOptions
  extends Selection,
    AdapterOutputOptions,
    OptionsOf<typeof newNameOption & typeof seedOption>,
    OptionsOf<typeof fitOptions> {}
