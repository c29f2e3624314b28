import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';

/** Measures that are gathered batch by batch. */
export interface MetricAccumulator {
  /**
   * @param logits what the loss looks at: the model's output before a last Softmax or Sigmoid
   * @param batch the feeds of the run, labels included
   */
  add(logits: TensorValue, batch: Feeds): void;
  /** The measures by name; NaN where nothing counted. */
  result(): Record<string, number>;
}

export interface MetricOptions {
  /** Labels with this value do not count; default -100. */
  readonly ignoreIndex?: number | undefined;
  /** The class of ctc that stands for no label; default 0. */
  readonly blank?: number | undefined;
}
