import type { TensorValue } from '../../runtime/tensor-value.js';
import type { SampleSpec } from '../dataset.js';

export interface LabelOptions {
  /** The classes, where they have numbers already. */
  readonly classes?: readonly string[] | undefined;
  readonly ignoreIndex?: number | undefined;
}

/** Sees the labels of all rows. */
export interface LabelCollector {
  /** @throws BadRow for a value that is not a label */
  note(value: unknown): void;
  finish(): Labels;
}

/** Knows what all labels are. */
export interface Labels {
  /** The array for the loss, and what it holds. */
  readonly key: string;
  readonly spec: SampleSpec;
  /** By number, where classes have names. */
  readonly classes?: readonly string[] | undefined;
  /** @param values that were noted */
  batch(values: readonly unknown[]): TensorValue;
}
