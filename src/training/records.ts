/** Records of a run's steps and evaluations. */

/** The record of one update. */
export interface StepRecord {
  /** Counted from 1. */
  readonly step: number;
  /** Passes over the data, with the part of the present one. */
  readonly epoch: number;
  /** Mean over the batches of the step. */
  readonly loss: number;
  /** Before clipping; not a number, null in JSON, where it overflowed. */
  readonly gradNorm: number;
  /** Learning rate of the step. */
  readonly lr: number;
  /** Milliseconds of the step. */
  readonly ms: number;
  /** Samples per second. */
  readonly samplesPerSecond: number;
  /** The scale of the loss from the next update on, where the gradient overflowed and this one was left out. */
  readonly lossScale?: number;
}

/** The record of one evaluation. */
export interface EvalRecord {
  /** The step after which it was made. */
  readonly step: number;
  /** The loss and the measures, by name. */
  readonly eval: Readonly<Record<string, number>>;
}

/** A line of a run's log. */
export type LogRecord = StepRecord | EvalRecord;
