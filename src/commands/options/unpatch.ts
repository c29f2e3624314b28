import {
  type OutputOptions,
  outputOption,
  type WriteOptions,
  writeOptions,
} from '../../onnx/write-options.js';
import type { OptionsOf } from '../../options/option.js';
import { nameOption } from './name.js';

export const unpatchOptions = {
  ...nameOption,
  ...outputOption('model.base.onnx'),
  ...writeOptions,
};

/** Options of `unpatch`. */
export interface UnpatchOptions
  extends OutputOptions,
    WriteOptions,
    OptionsOf<typeof nameOption>,
    OptionsOf<typeof unpatchOptions> {}
