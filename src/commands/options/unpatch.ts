import { outputOption, writeOptions } from '../../onnx/write-options.js';
import type { OptionsOf } from '../../options/option.js';
import { nameOption } from './name.js';

export const unpatchOptions = {
  ...nameOption,
  ...outputOption('model.base.onnx'),
  ...writeOptions,
};

export interface UnpatchOptions extends OptionsOf<typeof unpatchOptions> {}
