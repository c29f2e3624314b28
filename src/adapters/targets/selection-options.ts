/** Which layers. */
import { type OptionsOf, option } from '../../options/option.js';
import { list, text } from '../../options/schemas.js';

/** The layers where nothing is said: all but convolutions. */
export const DEFAULT_TARGETS: readonly string[] = ['all-linear'];

export const selectionOptions = {
  /** Patterns of the layers that take part; default `all-linear`. */
  targets: option(list(text, 0), {
    group: 'Layers',
    value: 'PATTERN',
    default: DEFAULT_TARGETS,
    summary:
      'layers by module path, dotted suffix, node name, re:REGEX, glob:GLOB, all-linear, or all (1x1 convolutions too)',
    example: '--targets query --targets self.value',
  }),
  /** Patterns of layers to leave out. */
  exclude: option(list(text, 0), {
    group: 'Layers',
    value: 'PATTERN',
    summary: 'layers to leave out, by the same patterns',
    example: '--exclude classifier',
  }),
  /** `0-5,8`: keeps modules whose first numeric path segment is listed. */
  layers: option(text, {
    group: 'Layers',
    value: 'LIST',
    summary: 'keep only modules whose first numeric path segment is listed',
    example: '--layers 0-5,8',
  }),
};

/** Options that choose layers. */
export interface Selection extends OptionsOf<typeof selectionOptions> {}
