/** What a run records of its steps and evaluations. */

/** What is known of one update. */
export interface StepRecord {
  /** Counted from 1. */
  readonly step: number;
  /** Passes over the data, with the part of the present one. */
  readonly epoch: number;
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
  readonly lr: number;
  readonly ms: number;
  readonly samplesPerSecond: number;
}

/** What is known of one evaluation. */
export interface EvalRecord {
  readonly step: number;
  readonly eval: Readonly<Record<string, number>>;
}

export type LogRecord = StepRecord | EvalRecord;
