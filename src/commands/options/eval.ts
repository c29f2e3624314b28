import { dataOption } from '../../data/data-options.js';
import { forceFor, noteOption, writeOptions } from '../../onnx/write-options.js';
import { type OptionsOf, option, type ResolvedOf } from '../../options/option.js';
import { list, path, text } from '../../options/schemas.js';
import { providerOption, threadsOption } from '../../runtime/options.js';
import { lossDataOptions } from '../../training/loss-data-options.js';
import { batchSizeOption, guardOption, lossSettings } from '../../training/loss-settings.js';

export const evalOptions = {
  ...dataOption,
  ...lossDataOptions,
  ...lossSettings,
  ...batchSizeOption,
  /** Limits that the measures have to meet, as `accuracy>=0.9`. */
  expect: option(list(text, 0), {
    group: 'Check',
    value: 'CONDITION',
    summary: 'what has to be reached, by >=, <=, >, < or ==; else the exit status is 2',
    example: '--expect "accuracy>=0.9" --expect "loss<0.5"',
  }),
  ...guardOption,
  /** An HTML file for the measures and the classes that are taken for one another. */
  html: option(path, {
    group: 'Output',
    value: 'FILE',
    summary: 'the measures, and which classes are taken for which, as a page',
    example: '--html eval.html',
  }),
  ...writeOptions,
  ...forceFor('html'),
  ...providerOption,
  ...threadsOption,
  ...noteOption,
};

/** Options of `evaluate`. */
export interface EvaluateOptions extends OptionsOf<typeof evalOptions> {}

export type ResolvedEvaluateOptions = ResolvedOf<typeof evalOptions>;
