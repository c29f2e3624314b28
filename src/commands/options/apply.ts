import { type BindOptions, bindOptions } from '../../adapters/binding/bind-options.js';
import { adapterFormats } from '../../adapters/structure/choices.js';
import {
  type OutputOptions,
  outputOption,
  type WriteOptions,
  writeOptions,
} from '../../onnx/write-options.js';
import { type OptionsOf, option } from '../../options/option.js';
import { choice, text } from '../../options/schemas.js';

export const applyOptions = {
  /** Name of the adapter set in the model. Default: as in the file. */
  name: option(text, {
    group: 'Adapters',
    value: 'NAME',
    defaultText: 'as in the file',
    summary: 'name of the adapter set in the model',
    example: '--name german',
  }),
  /** The format of the adapters. Default: as the file or folder looks. */
  format: option(choice(adapterFormats), {
    group: 'Adapters',
    value: 'NAME',
    defaultText: 'as the file or folder looks',
    summary: 'format of the adapters',
    example: '--format peft',
  }),
  ...bindOptions,
  ...outputOption('model.lora.onnx'),
  ...writeOptions,
};

/** Options of `apply`. */
export interface ApplyOptions
  extends BindOptions,
    OutputOptions,
    WriteOptions,
    OptionsOf<typeof applyOptions> {}
