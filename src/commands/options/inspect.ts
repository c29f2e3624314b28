import { forceFor, type WriteOptions, writeOptions } from '../../onnx/write-options.js';
import { type OptionsOf, option } from '../../options/option.js';
import { path } from '../../options/schemas.js';

export const inspectOptions = {
  /** Write the result as an HTML page, with a map of what the adapters changed. */
  html: option(path, {
    group: 'Output',
    value: 'FILE',
    summary: 'write everything to an HTML page, with a map of what the adapters changed',
    example: '--html report.html',
  }),
  ...writeOptions,
  ...forceFor('html'),
};

/** Options of `inspect`. */
export interface InspectOptions extends WriteOptions, OptionsOf<typeof inspectOptions> {}
