/** Texts, and how they become tokens. */
import { type OptionsOf, option } from '../../options/option.js';
import { path, text, toggle, whole } from '../../options/schemas.js';
import type { RowOptions } from '../rows/row-options.js';

/** The longest text in tokens where neither the tokenizer nor the model has a limit. */
export const DEFAULT_MAX_LENGTH = 512;

export const textOptions = {
  /** A `tokenizer.json`, or a folder with one and its `tokenizer_config.json`. */
  tokenizer: option(path, {
    group: 'Data',
    value: 'PATH',
    summary: "of texts: the model's tokenizer.json, or the folder that holds it",
    example: '--tokenizer minilm/',
  }),
  /** The field of a row that holds the text. Default: a name that is common for it. */
  textField: option(text, {
    group: 'Data',
    value: 'FIELD',
    defaultText: 'text, sentence, messages, ..',
    summary: 'the field with the text, or with the messages of a conversation',
    example: '--text-field review',
  }),
  /** The field with the second text. */
  textPairField: option(text, {
    group: 'Data',
    value: 'FIELD',
    summary: 'the field with a second text; where texts are compared, the one to find',
    example: '--text-field premise --text-pair-field hypothesis',
  }),
  /** Of pairs: the field with a text that is not the one to find. */
  textNegativeField: option(text, {
    group: 'Data',
    value: 'FIELD',
    summary: 'where texts are compared: the field with a text that is not the one to find',
    example: '--text-negative-field negative',
  }),
  /** Most tokens of a sample. Default: what tokenizer and model say. */
  maxLength: option(whole(1), {
    group: 'Data',
    value: 'TOKENS',
    defaultText: `from tokenizer and model, else ${DEFAULT_MAX_LENGTH}`,
    summary: 'longest text in tokens; longer ones are truncated, in pairs the longer text first',
    example: '--max-length 128',
  }),
  /** false: a text of more tokens is a bad row. Default true. */
  truncate: option(toggle, {
    group: 'Data',
    default: true,
    summary: 'treat texts longer than `maxLength` as bad rows',
    example: '--no-truncate --skip-bad-rows',
  }),
};

/** Options of texts, and of how they become tokens. */
export interface TextOptions
  extends OptionsOf<typeof textOptions>,
    Pick<RowOptions, 'labelField'> {}
