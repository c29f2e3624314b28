/** Options of the file of adapters, and of its format. */
import { type WriteOptions, writeOptions } from '../../onnx/write-options.js';
import {
  type Condition,
  type OptionsOf,
  option,
  restricted,
  type Values,
} from '../../options/option.js';
import { choice, path, text, whole } from '../../options/schemas.js';
import { type AdapterFormat, adapterFormats, peftTypes } from '../structure/choices.js';
import { formatByName } from './format-of.js';

/** A path whose ending says nothing is refused for that. */
const isPeft: Condition = {
  holds: (options) => ['peft', undefined].includes(writtenFormat(options)),
  otherwise: (options) => `on ${writtenFormat(options)} files`,
  remedy: "write a PEFT folder: `output: FOLDER`, or `format: 'peft'`",
};

function writtenFormat({ format, output }: Values): AdapterFormat | undefined {
  if (format !== undefined) return format as AdapterFormat;
  return typeof output === 'string' ? formatByName(output) : undefined;
}

/** Texts on a written PEFT folder. */
export const peftOptions = {
  /** Default: `gralora` where it can express the adapters, else `lora`. */
  peftType: option(choice(peftTypes), {
    group: 'Output',
    value: 'NAME',
    defaultText: 'gralora where it fits',
    summary: 'adapter type for PEFT; lora can express every structure',
    example: '--peft-type lora',
  }),
  /** LORA of at most this rank, by singular values. Default: exact, whatever the rank. */
  peftRank: option(whole(1), {
    group: 'Output',
    value: 'R',
    summary: 'write plain LoRA of at most this rank, by singular values; the error is shown',
    example: '--peft-rank 16',
  }),
  /** `OLD=NEW`: how module paths begin in the ONNX model and in PyTorch. */
  peftPrefix: option(text, {
    group: 'Output',
    value: 'OLD=NEW',
    summary: 'how module paths begin in the ONNX model and in PyTorch; either may be empty',
    example: '--peft-prefix wrapper=',
  }),
  /** The base model's name or path for PEFT; becomes `base_model_name_or_path`. */
  baseModel: option(text, {
    group: 'Output',
    value: 'NAME',
    summary: 'name or path that PEFT loads the base model from',
    example: '--base-model bert-base-uncased',
  }),
};

/** Options of writing a PEFT folder. */
export interface PeftOptions extends OptionsOf<typeof peftOptions> {}

export const adapterOutputOptions = {
  /** The file or folder to write. */
  output: option(path, {
    group: 'Output',
    value: 'PATH',
    short: 'o',
    required: true,
    summary: 'where to write the adapters: .safetensors, .onnx_adapter, or a folder for PEFT',
    example: '-o adapter.safetensors',
  }),
  /** The format. Default: by the ending of the output. */
  format: option(choice(adapterFormats), {
    group: 'Output',
    value: 'NAME',
    defaultText: 'by the ending',
    summary: 'format of the output',
    example: '--format safetensors',
  }),
  ...restricted(peftOptions, { when: [isPeft] }),
  ...writeOptions,
};

/** Options of writing adapters to a file or folder. */
export interface AdapterOutputOptions
  extends PeftOptions,
    WriteOptions,
    OptionsOf<typeof adapterOutputOptions> {}
