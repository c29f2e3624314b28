/** Options of samples. */
import { option } from '../options/option.js';
import { path } from '../options/schemas.js';
import { type ImageOptions, imageOptions } from './images/options.js';
import { type RowOptions, rowOptions } from './rows/row-options.js';
import { type TextOptions, textOptions } from './text/options.js';

/** The samples themselves. */
export const dataOption = {
  /** Samples; see `openDataset`. */
  data: option(path, {
    group: 'Data',
    value: 'FILE',
    required: true,
    summary:
      'samples: .safetensors or .npz, an array for each model input and labels or target, all with the samples as first axis; texts, or paths of images: .jsonl, .csv, .tsv or .parquet; images: a folder with a folder for each class',
    example: '--data samples.safetensors',
  }),
};

/** The way they are read. */
export const dataOptions = { ...rowOptions, ...textOptions, ...imageOptions };

/** Options of reading samples, of any kind. */
export interface DataOptions extends RowOptions, TextOptions, ImageOptions {}
