/** Options of the commands that read data: train and eval. */

import { channelOrders, fits, kernels } from '../src/data/images/choices.js';
import { providerNames } from '../src/runtime/provider-names.js';
import { type LossOption, lossesWith, lossNames } from '../src/training/losses/index.js';
import type { LegacySpecs as OptionSpecs } from './legacy.js';

/** On what. */
export const dataOption = {
  data: {
    type: 'path',
    group: 'Data',
    value: 'FILE',
    required: true,
    summary:
      'samples: .safetensors or .npz, an array for each model input and labels or target, all with the samples as first axis; texts, or paths of images: .jsonl, .csv, .tsv or .parquet; images: a folder with a folder for each class',
    example: '--data samples.safetensors',
  },
} as const satisfies OptionSpecs;

/** Rows of files that are no tensors. */
export const rowOptions = {
  labelField: {
    type: 'string',
    group: 'Data',
    value: 'FIELD',
    default: 'label, class, ..',
    summary: 'the field with the label: a class, a number, or a list of them, as the loss takes it',
    example: '--label-field sentiment',
  },
  labels: {
    type: 'path',
    group: 'Data',
    value: 'FILE',
    default: 'those of the model, or of the data in alphabetical order',
    summary: 'the name of a class on each line, in their order',
    example: '--labels classes.txt',
  },
  skipBadRows: {
    type: 'boolean',
    group: 'Data',
    summary: 'leave bad rows out and count them, instead of stopping at the first one',
    example: '--skip-bad-rows --json | jq .skippedRows',
  },
} as const satisfies OptionSpecs;

/** Texts, and how they become tokens. */
export const textOptions = {
  tokenizer: {
    type: 'path',
    group: 'Data',
    value: 'PATH',
    summary: "of texts: the model's tokenizer.json, or the folder that holds it",
    example: '--tokenizer minilm/',
  },
  textField: {
    type: 'string',
    group: 'Data',
    value: 'FIELD',
    default: 'text, sentence, messages, ..',
    summary: 'the field with the text, or with the messages of a conversation',
    example: '--text-field review',
  },
  textPairField: {
    type: 'string',
    group: 'Data',
    value: 'FIELD',
    summary: 'the field with a second text; where texts are compared, the one to find',
    example: '--text-field premise --text-pair-field hypothesis',
  },
  textNegativeField: {
    type: 'string',
    group: 'Data',
    value: 'FIELD',
    summary: 'where texts are compared: the field with a text that is not the one to find',
    example: '--text-negative-field negative',
  },
  maxLength: {
    type: 'integer',
    group: 'Data',
    value: 'TOKENS',
    default: 'from tokenizer and model, else 512',
    summary: 'longest text in tokens; longer ones are truncated, in pairs the longer text first',
    example: '--max-length 128',
  },
  truncate: {
    type: 'boolean',
    group: 'Data',
    onByDefault: true,
    summary: 'treat texts longer than --max-length as bad rows',
    example: '--no-truncate --skip-bad-rows',
  },
} as const satisfies OptionSpecs;

/** Images, and how they become numbers. */
export const imageOptions = {
  imageField: {
    type: 'string',
    group: 'Images',
    value: 'FIELD',
    default: 'image, path, file, ..',
    summary: 'the field with the path of an image, from the folder of the data file',
    example: '--image-field photo',
  },
  imageSize: {
    type: 'string',
    group: 'Images',
    value: 'SIZE',
    default: "from the model's input",
    summary: 'input size of the model: one number, or height x width',
    example: '--image-size 48x320',
  },
  mean: {
    type: 'number',
    group: 'Images',
    value: 'NUMBER',
    repeatable: true,
    default: 0,
    summary:
      'mean per channel, subtracted from pixel values of 0 to 1; one number serves all channels',
    example: '--mean 0.485 --mean 0.456 --mean 0.406',
  },
  std: {
    type: 'number',
    group: 'Images',
    value: 'NUMBER',
    repeatable: true,
    default: 1,
    summary: 'standard deviation per channel, applied after --mean',
    example: '--std 0.229 --std 0.224 --std 0.225',
  },
  processor: {
    type: 'path',
    group: 'Images',
    value: 'FILE',
    summary: 'a preprocessor_config.json with these settings; options given here win',
    example: '--processor vit/preprocessor_config.json',
  },
  fit: {
    type: 'string',
    group: 'Images',
    value: 'HOW',
    default: 'crop',
    choices: fits,
    summary: "crop, stretch or pad images whose aspect ratio differs from the model's input",
    example: '--fit pad',
  },
  resample: {
    type: 'string',
    group: 'Images',
    value: 'KERNEL',
    default: 'bilinear',
    choices: kernels,
    summary: 'interpolation used to resize images',
    example: '--resample bicubic',
  },
  channels: {
    type: 'string',
    group: 'Images',
    value: 'ORDER',
    default: 'rgb, or gray for a model of one channel',
    choices: channelOrders,
    summary: 'channel order that the model expects',
    example: '--channels bgr',
  },
  dictionary: {
    type: 'path',
    group: 'Images',
    value: 'FILE',
    summary:
      'of models that spell: a character on each line, in the order of the classes without the blank',
    example: '--dictionary characters.txt',
  },
} as const satisfies OptionSpecs;

export const batchOption = {
  batchSize: {
    type: 'integer',
    group: 'Training',
    value: 'N',
    default: 8,
    summary: 'samples in a batch',
    example: '--batch-size 32',
  },
} as const satisfies OptionSpecs;

/** A summary that names the losses that the option has an effect on. */
export const ofLosses = (option: LossOption, summary: string): string =>
  `of ${lossesWith(option)}: ${summary}`;

/** What is computed. */
export const lossOptions = {
  loss: {
    type: 'string',
    group: 'Loss',
    value: 'NAME',
    required: true,
    choices: lossNames,
    summary: 'loss function',
    example: '--loss cross-entropy',
  },
  ignoreIndex: {
    type: 'integer',
    group: 'Loss',
    value: 'N',
    default: -100,
    summary: 'labels with this value do not count',
    example: '--ignore-index -1',
  },
  classWeights: {
    type: 'number',
    group: 'Loss',
    value: 'WEIGHT',
    repeatable: true,
    summary: ofLosses('classWeights', 'a weight for each class, in their order'),
    example: '--class-weights 1 --class-weights 5',
  },
  focalGamma: {
    type: 'number',
    group: 'Loss',
    value: 'GAMMA',
    default: 2,
    summary: ofLosses('focalGamma', 'how much less easy samples count; 0 is cross-entropy'),
    example: '--loss focal --focal-gamma 1',
  },
  posWeight: {
    type: 'number',
    group: 'Loss',
    value: 'WEIGHT',
    repeatable: true,
    summary: ofLosses(
      'posWeight',
      'a weight of positive answers, for all or for each element of the last axis',
    ),
    example: '--pos-weight 3',
  },
  blank: {
    type: 'integer',
    group: 'Loss',
    value: 'CLASS',
    default: 0,
    summary: ofLosses('blank', 'the class that stands for no label'),
    example: '--blank 31',
  },
  scale: {
    type: 'number',
    group: 'Loss',
    value: 'FACTOR',
    default: 20,
    summary: ofLosses('scale', 'what cosines are multiplied by'),
    example: '--scale 50',
  },
  modelOutput: {
    type: 'string',
    group: 'Loss',
    value: 'NAME',
    summary: 'the output that the loss looks at, where the model has more than one',
    example: '--model-output logits',
  },
} as const satisfies OptionSpecs;

export const guardOption = {
  guard: {
    type: 'boolean',
    group: 'Check',
    onByDefault: true,
    summary: 'do not compare what computes the loss with the model file itself on the first batch',
    example: '--no-guard',
  },
} as const satisfies OptionSpecs;

/** How the work is done. */
export const runtimeOptions = {
  provider: {
    type: 'string',
    group: 'General',
    value: 'NAME',
    choices: ['auto', ...providerNames],
    default: 'auto',
    summary: 'execution provider; auto measures which is fastest here',
    example: '--provider cuda',
  },
  threads: {
    type: 'integer',
    group: 'General',
    value: 'N',
    default: 'all cores',
    summary: 'CPU threads',
    example: '--threads 2',
  },
} as const satisfies OptionSpecs;
