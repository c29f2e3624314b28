/** The options of gradients of weights, by themselves: whoever lists options has no need of what computes them. */
import { dataOption } from '../data/data-options.js';
import { noteOption, workOptions } from '../onnx/write-options.js';
import { seedOption } from '../options/common.js';
import { handler, type OptionsOf, option } from '../options/option.js';
import { whole } from '../options/schemas.js';
import { providerOption, threadsOption } from '../runtime/options.js';
import { lossDataOptions } from './loss-data-options.js';
import { batchSizeOption, guardOption, lossSettings } from './loss-settings.js';

/** Options of the gradients of weights: the data, and the loss. */
export const gradientOptions = {
  ...dataOption,
  ...lossDataOptions,
  ...lossSettings,
  ...guardOption,
  /** Batches to look at; default 8. */
  batches: option(whole(1), {
    group: 'Training',
    value: 'N',
    default: 8,
    summary: 'batches that the gradient is the mean of, drawn at random',
    example: '--batches 32',
  }),
  /** Default 8; less where the data would not make two batches. */
  batchSize: batchSizeOption.batchSize,
  /** Which batches. */
  ...seedOption,
  /** Bytes that gradients may take at a time; default 512 MB. */
  memory: handler(whole(1)),
  ...providerOption,
  ...threadsOption,
  ...noteOption,
  ...workOptions,
};

/** Options of `weightGradients`. */
export interface GradientOptions extends OptionsOf<typeof gradientOptions> {}
