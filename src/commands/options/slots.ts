import { perNodeOption } from '../../adapters/edit/adapter-options.js';
import { slotModes } from '../../adapters/structure/choices.js';
import { selectionOptions } from '../../adapters/targets/selection-options.js';
import { outputOption, writeOptions } from '../../onnx/write-options.js';
import { type OptionsOf, option, restricted } from '../../options/option.js';
import { choice } from '../../options/schemas.js';
import { checkOptions, verifyOption } from './check.js';

/** Who feeds the slots of a model. */
export const slotMode = choice(slotModes);
export const DEFAULT_SLOT_MODE = 'required';

export const slotOptions = {
  ...selectionOptions,
  ...perNodeOption,
  /**
   * `required` for AdapterSession and the browser, `optional` for ONNX Runtime in Python, C# and C++.
   * Default `required`.
   */
  mode: option(slotMode, {
    group: 'Adapters',
    value: 'KIND',
    default: DEFAULT_SLOT_MODE,
    summary: 'required inputs for Node and the browser, optional ones for other languages',
    example: '--mode optional',
  }),
  ...verifyOption,
  ...restricted(checkOptions, { needs: ['verify'] }),
  ...outputOption('model.slots.onnx'),
  ...writeOptions,
};

/** Options of `addSlots`. */
export interface AddSlotsOptions extends OptionsOf<typeof slotOptions> {}
