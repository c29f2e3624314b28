/** Options of rows in files without tensors. */
import { type OptionsOf, option } from '../../options/option.js';
import { path, text, toggle } from '../../options/schemas.js';

export const rowOptions = {
  /** The field of a row with the label. Default: a name that is common for it. */
  labelField: option(text, {
    group: 'Data',
    value: 'FIELD',
    defaultText: 'label, class, ..',
    summary: 'the field with the label: a class, a number, or a list of them, as the loss takes it',
    example: '--label-field sentiment',
  }),
  /** A file with the name of a class on each line, in their order. Default: the names in the data, sorted. */
  labels: option(path, {
    group: 'Data',
    value: 'FILE',
    defaultText: 'those of the model, or of the data in alphabetical order',
    summary: 'the name of a class on each line, in their order',
    example: '--labels classes.txt',
  }),
  /** Leave rows out that cannot be read, and count them. */
  skipBadRows: option(toggle, {
    group: 'Data',
    default: false,
    summary: 'leave bad rows out and count them, instead of stopping at the first one',
    example: '--skip-bad-rows --json | jq .skippedRows',
  }),
};

/** Options of files of rows. */
export interface RowOptions extends OptionsOf<typeof rowOptions> {}
