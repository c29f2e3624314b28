/** Records of a run's steps, evaluations and samples of its writing. */

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

/** A look at the writing of the model, after a step. */
export interface SampleRecord {
  /** Number of updates before it; 0 for the model that the run starts from. */
  readonly step: number;
  /** The prompts in their order, each with what follows it. */
  readonly samples: readonly WrittenSample[];
}

/** A prompt and what a model makes of it. */
export interface WrittenSample {
  /** A text that was continued, or a message that was answered. */
  readonly prompt: string;
  /** The continuation, or the answer. */
  readonly text: string;
}

/** A line of a run's log. */
export type LogRecord = StepRecord | EvalRecord | SampleRecord;
