/** What the labels of rows become: an array for the loss. */
import type { TensorValue } from '../../../runtime/tensor-value.js';
import type { LossName } from '../../losses/index.js';
import type { SampleSpec } from '../dataset.js';
import { classLabels } from './class-labels.js';
import { classSets } from './class-sets.js';
import { numberLabels } from './number-labels.js';

export interface LabelOptions {
  /** The classes, where they have numbers already. */
  readonly classes?: readonly string[] | undefined;
  readonly ignoreIndex?: number | undefined;
}

/** Sees the labels of all rows. */
export interface LabelCollector {
  /** @throws BadRow for a value that is no label */
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

/** undefined for a loss that reads no labels of rows. */
export function labelCollector(loss: LossName, options: LabelOptions): LabelCollector | undefined {
  if (loss === 'cross-entropy') return classLabels(options);
  if (loss === 'bce') return classSets(options);
  if (loss === 'mse') return numberLabels('target');
  if (loss === 'kl') return numberLabels('teacher');
  return undefined;
}
