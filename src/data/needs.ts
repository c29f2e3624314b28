/** The arrays that a graph and its loss need from a dataset. */
import type { ValueSpec } from '../graph/builder.js';
import type { DataTypeName } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';
import type { IndexBounds } from '../runtime/index-bounds.js';
import type { LabelRequest } from './label-kind.js';

export interface Batches {
  readonly batchSize: number;
  readonly shuffle: boolean;
}

/** An input that a graph has to be fed. */
export interface GraphNeeds extends LabelRequest {
  /** Of the model, with its batch axis. */
  readonly inputs: readonly ValueSpec[];
  /** Of the loss; see `addLoss`. */
  readonly lossInputs: readonly ValueSpec[];
  /** The output that the loss reads. */
  readonly output: Pick<ModelOutput, 'shape'>;
  /** Labels with this value do not count; default -100. */
  readonly ignoreIndex?: number | undefined;
}

export interface DataNeeds extends GraphNeeds {
  /** Of spelling: the class for no label; default 0. */
  readonly blank?: number | undefined;
  /** Of spelling: frames of the output, where its shape says them for the sizes of the data only. */
  readonly frames?: number | undefined;
  /** Which integers model inputs may hold, by input, where it is known; see `IndexTracer`. */
  readonly indexBounds?: ReadonlyMap<string, IndexBounds | undefined> | undefined;
  /** The way batches are made, where it is known. */
  readonly batches?: Batches | undefined;
}

/** A model output with what is known of it; a null shape says nothing. */
export interface ModelOutput {
  /** Name of the value. */
  readonly name: string;
  /** Type of the value. */
  readonly dtype: DataTypeName;
  /** Its shape; null where the rank is not known. */
  readonly shape: readonly Dim[] | null;
}
