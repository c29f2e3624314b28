/** Options of samples. */
import { option, restricted } from '../options/option.js';
import { path } from '../options/schemas.js';
import { ofRows, ofRowsAndImages } from './data-kind.js';
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

const { labelField, ...otherRowOptions } = rowOptions;
const { imageField, ...pixelOptions } = imageOptions;

/** The way they are read. */
export const dataOptions = {
  ...restricted({ labelField }, ofRows),
  ...restricted(otherRowOptions, ofRowsAndImages),
  ...restricted(textOptions, ofRows),
  ...restricted({ imageField }, ofRows),
  ...restricted(pixelOptions, ofRowsAndImages),
};

// The tokenizer may come from the model's folder, whatever the model takes.
const { tokenizer: _, ...textsAlone } = textOptions;

/** Options that have an effect on rows of texts alone. */
export const textOptionKeys = Object.keys(textsAlone) as (keyof typeof textsAlone)[];

/** Options that have an effect on images alone. */
export const imageOptionKeys = Object.keys(imageOptions) as (keyof typeof imageOptions)[];

/** Options of reading samples, of any kind. */
export interface DataOptions extends RowOptions, TextOptions, ImageOptions {}
