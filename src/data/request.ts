/** A request to files of texts or images: numbers for the inputs of one model, and labels. */
import * as v from 'valibot';
import type { ValueInfo } from '../onnx/model.js';
import { noteOption, type WorkOptions, workOptions } from '../onnx/write-options.js';
import { handler, type OptionsOf } from '../options/option.js';
import { pickOptions } from '../options/resolve.js';
import { list, object, toggle, whole } from '../options/schemas.js';
import { type DataOptions, dataOptions } from './data-options.js';
import { type LabelRequest, labelOptions } from './label-kind.js';

export const requestOptions = {
  ...dataOptions,
  ...labelOptions,
  ...workOptions,
  ...noteOption,
  /** Of the model, with their batch axis. */
  inputs: handler(list(object<ValueInfo>('an input of a model'), 0), { required: true }),
  /** Whether the model takes a cache of earlier tokens. */
  hasCache: handler(toggle),
  /** Number of positions in the model's table, where that is known. */
  positions: handler(whole(0)),
  /** Stands for labels that do not count; default -100. */
  ignoreIndex: handler(whole()),
  /** Of spelling: the class for no label; default 0. */
  blank: handler(whole(0)),
  /** The names of the classes, where the model or the data trained on have given them numbers. */
  classes: handler(list(v.string('a text'), 0)),
};

/** Options of opening samples for a model and a loss. */
export interface DataRequest
  extends DataOptions,
    LabelRequest,
    WorkOptions,
    OptionsOf<typeof requestOptions> {}

/** A request of options among which there are others. */
export function dataRequest(options: DataRequest): DataRequest {
  return pickOptions(requestOptions, options);
}
