import { shapeOptions } from '../../adapters/edit/adapter-options.js';
import { DEFAULT_TARGETS, selectionOptions } from '../../adapters/targets/selection-options.js';
import { dataOption } from '../../data/data-options.js';
import { forceFor, noteOption, writeOptions } from '../../onnx/write-options.js';
import { type OptionsOf, option, optional, restricted, varied } from '../../options/option.js';
import { path, whole } from '../../options/schemas.js';
import { gradientOptions } from '../../training/gradient-options.js';

const { data: _data, loss, seed, memory, signal, onProgress, onNote, ...ofData } = gradientOptions;

export const adviseOptions = {
  ...selectionOptions,
  /** Patterns of the layers that take part; default `all-linear`. In the advice, too, where given. */
  targets: varied(optional(selectionOptions.targets), { defaultText: DEFAULT_TARGETS.join(' ') }),
  /** A tuned model of the same architecture: the advice is about its changes. */
  tuned: option(path, {
    group: 'Data',
    value: 'TUNED',
    summary: 'a tuned model of the same architecture: the advice is about its changes',
    example: '--tuned tuned.onnx',
  }),
  /** Samples: the advice is about the gradient of `loss` on them. */
  data: varied(optional(dataOption.data), { notWith: ['tuned'], requires: ['loss'] }),
  ...restricted({ loss: optional(loss), ...ofData }, { needs: ['data'] }),
  /** R, at which structures are compared; default 16. */
  rank: varied(shapeOptions.rank, { summary: 'structures are compared at this rank' }),
  /** The parameters of all adapters together: ranks are chosen too, a layer may get none. */
  budget: option(whole(1), {
    group: 'Adapters',
    value: 'PARAMS',
    summary: 'parameters of all adapters together: ranks are chosen too, and a layer may get none',
    example: '--budget 500000',
  }),
  /** A file for the options that follow, as a config file of `patch`. */
  writeConfig: option(path, {
    group: 'Output',
    value: 'FILE',
    summary: 'a file with the options that follow, for `config` of patch',
    example: '--write-config lora.json',
  }),
  ...writeOptions,
  ...forceFor('writeConfig'),
  ...noteOption,
  seed,
};

/** Options of `advise`. */
export interface AdviseOptions extends OptionsOf<typeof adviseOptions> {}
