/** Labels of rows as an array for the loss. */
import type { LabelKind } from '../label-kind.js';
import { classLabels } from './class-labels.js';
import { classSets } from './class-sets.js';
import type { LabelCollector, LabelOptions } from './label-collector.js';
import { numberLabels } from './number-labels.js';

/** undefined for labels that are not a field of their row. */
export function labelCollector(kind: LabelKind, options: LabelOptions): LabelCollector | undefined {
  if (kind === 'classes') return classLabels(options);
  if (kind === 'sets') return classSets(options);
  if (kind === 'numbers') return numberLabels('target');
  if (kind === 'teacher') return numberLabels('teacher');
  return undefined;
}
