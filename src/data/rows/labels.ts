/** Labels of rows as an array for the loss. */
import type { LossName } from '../loss-name.js';
import { classLabels } from './class-labels.js';
import { classSets } from './class-sets.js';
import type { LabelCollector, LabelOptions } from './label-collector.js';
import { numberLabels } from './number-labels.js';

/** undefined for a loss that reads no labels of rows. */
export function labelCollector(loss: LossName, options: LabelOptions): LabelCollector | undefined {
  if (loss === 'cross-entropy') return classLabels(options);
  if (loss === 'bce') return classSets(options);
  if (loss === 'mse') return numberLabels('target');
  if (loss === 'kl') return numberLabels('teacher');
  return undefined;
}
