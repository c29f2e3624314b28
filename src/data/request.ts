/** A request to files of texts or images: numbers for the inputs of one model, and labels. */
import type { ValueInfo } from '../onnx/model.js';
import type { WorkOptions } from '../onnx/write.js';
import type { DataOptions } from './data-options.js';
import type { LabelRequest } from './label-kind.js';

/** Options of opening samples for a model and a loss. */
export interface DataRequest extends DataOptions, LabelRequest, WorkOptions {
  /** Of the model, with their batch axis. */
  readonly inputs: readonly ValueInfo[];
  /** Number of positions in the model's table, where that is known. */
  readonly positions?: number | undefined;
  /** Stands for labels that do not count; default -100. */
  readonly ignoreIndex?: number | undefined;
  /** Of spelling: the class for no label; default 0. */
  readonly blank?: number | undefined;
  /** The names of the classes, where the model or the data trained on have given them numbers. */
  readonly classes?: readonly string[] | undefined;
  /** Remarks for people: what is not read, what was chosen. */
  readonly onNote?: ((text: string) => void) | undefined;
}
