/** Names of adapter sets. */
import { option } from '../../options/option.js';
import { text } from '../../options/schemas.js';

const texts = { group: 'Adapters', value: 'NAME', example: '--name german' } as const;

/** An adapter set of the model. */
export const nameOption = {
  /** An adapter set of the model. Default: all. */
  name: option(text, {
    ...texts,
    defaultText: 'all',
    summary: 'one adapter set of the model, by name',
  }),
};

/** The one adapter set that a command can deal with. */
export const theNameOption = {
  /** The adapter set. May be left out where the model has one. */
  name: option(text, {
    ...texts,
    defaultText: 'the only one',
    summary: 'adapter set to take, where the model has more than one',
  }),
};

/** The name of a set that nobody names. */
export const DEFAULT_NAME = 'default';

/** A set that comes into being. */
export const newNameOption = {
  /** Name of the adapter set; default `default`. */
  name: option(text, {
    ...texts,
    default: DEFAULT_NAME,
    defaultText: `"${DEFAULT_NAME}"`,
    summary: 'name of the adapter set; a model can carry several',
  }),
};
