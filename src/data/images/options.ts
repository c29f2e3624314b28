/** Images, and how they become numbers. */
import { type OptionsOf, option } from '../../options/option.js';
import { choice, list, number, path, text } from '../../options/schemas.js';
import { channelOrders, type Fit, fits, type Kernel, kernels } from './choices.js';

/** Settings that neither the user nor a preprocessor_config.json gives. */
export const pixelDefaults = {
  mean: 0,
  std: 1,
  fit: 'crop' satisfies Fit as Fit,
  resample: 'bilinear' satisfies Kernel as Kernel,
};

const orFromFile = (value: string | number) => `${value}, or as in \`processor\``;

export const imageOptions = {
  /** The field of a row with the path of the image. Default: a name that is common for it. */
  imageField: option(text, {
    group: 'Images',
    value: 'FIELD',
    defaultText: 'image, path, file, ..',
    summary: 'the field with the path of an image, from the folder of the data file',
    example: '--image-field photo',
  }),
  /** `224`, or height x width as in `48x320`. Default: what the model's input says. */
  imageSize: option(text, {
    group: 'Images',
    value: 'SIZE',
    defaultText: "from the model's input",
    summary: 'input size of the model: one number, or height x width',
    example: '--image-size 48x320',
  }),
  /** By channel, or one for all; default 0. */
  mean: option(list(number), {
    group: 'Images',
    value: 'NUMBER',
    defaultText: orFromFile(pixelDefaults.mean),
    summary:
      'mean per channel, subtracted from pixel values of 0 to 1; one number serves all channels',
    example: '--mean 0.485 --mean 0.456 --mean 0.406',
  }),
  /** By channel, or one for all; default 1. */
  std: option(list(number), {
    group: 'Images',
    value: 'NUMBER',
    defaultText: orFromFile(pixelDefaults.std),
    summary: 'standard deviation per channel, applied after `mean`',
    example: '--std 0.229 --std 0.224 --std 0.225',
  }),
  /** A `preprocessor_config.json` that says all this; what is given besides wins. */
  processor: option(path, {
    group: 'Images',
    value: 'FILE',
    summary: 'a preprocessor_config.json with these settings; options given here win',
    example: '--processor vit/preprocessor_config.json',
  }),
  /** Default crop. */
  fit: option(choice(fits), {
    group: 'Images',
    value: 'HOW',
    defaultText: orFromFile(pixelDefaults.fit),
    summary: "crop, stretch or pad images whose aspect ratio differs from the model's input",
    example: '--fit pad',
  }),
  /** Default bilinear. */
  resample: option(choice(kernels), {
    group: 'Images',
    value: 'KERNEL',
    defaultText: orFromFile(pixelDefaults.resample),
    summary: 'interpolation used to resize images',
    example: '--resample bicubic',
  }),
  /** Default rgb, or gray for a model of one channel. */
  channels: option(choice(channelOrders), {
    group: 'Images',
    value: 'ORDER',
    defaultText: 'rgb, or gray for a model of one channel',
    summary: 'channel order that the model expects',
    example: '--channels bgr',
  }),
  /** Of spelling: a file with a character on each line, in the order of the classes without the blank. */
  dictionary: option(path, {
    group: 'Images',
    value: 'FILE',
    summary:
      'of models that spell: a character on each line, in the order of the classes without the blank',
    example: '--loss ctc --dictionary characters.txt',
  }),
};

/** Options of images: where rows name them, and how they become arrays. */
export interface ImageOptions extends OptionsOf<typeof imageOptions> {}
