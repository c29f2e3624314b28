import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';
import type { ConfusionMatrix } from './confusion.js';

/** Every measure that there is. */
export type MetricName =
  | 'accuracy'
  | 'f1'
  | 'perplexity'
  | 'mse'
  | 'r2'
  | 'cer'
  | 'exactMatch'
  | `recall@${1 | 5 | 10}`
  | 'agreement';

/** Measures by name; NaN where nothing counted. */
export type Metrics = Readonly<Partial<Record<MetricName, number>>>;

/** Measures that are gathered batch by batch. */
export interface MetricAccumulator {
  /**
   * @param logits what the loss looks at: the model's output before a last Softmax or Sigmoid
   * @param batch the feeds of the run, labels included
   */
  add(logits: TensorValue, batch: Feeds): void;
  result(): Metrics;
  /** Which classes were taken for which, where there are classes. */
  readonly confusion?: ConfusionMatrix;
}

export interface MetricOptions {
  /** Labels with this value do not count; default -100. */
  readonly ignoreIndex?: number | undefined;
  /** Rows of a sample whose rows are compared; default 2. */
  readonly group?: number | undefined;
  /** The class that stands for no label, where frames spell a text; default 0. */
  readonly blank?: number | undefined;
}
