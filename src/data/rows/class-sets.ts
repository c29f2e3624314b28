import { tensorFromNumbers } from '../../runtime/tensor-value.js';
import { BadRow } from './bad-row.js';
import { ClassNames } from './class-names.js';
import type { LabelCollector, LabelOptions, Labels } from './label-collector.js';
import { numberLabels } from './number-labels.js';

/**
 * Any number of classes a row, as answers from 0 to 1: a list of names (or one name) becomes a 1 at each of
 * them; a list of numbers (or one number) is the answers themselves.
 */
export function classSets({ classes }: LabelOptions): LabelCollector {
  const numbers = numberLabels('target');
  const names = new ClassNames(classes);
  let kind: 'names' | 'numbers' | undefined;
  return {
    note(value) {
      const list = namesIn(value);
      const found = list ? 'names' : 'numbers';
      if (list?.length !== 0 && kind !== undefined && found !== kind) {
        throw new BadRow(`its label holds ${found}, those before hold ${kind}`);
      }
      if (list) for (const name of list) names.note(name);
      else numbers.note(value);
      if (list?.length !== 0) kind = found;
    },
    finish: () => (kind === 'numbers' ? numbers.finish() : sets(names.names)),
  };
}

function sets(classes: readonly string[]): Labels {
  const width = classes.length;
  const places = new Map(classes.map((name, i) => [name, i]));
  return {
    key: 'target',
    spec: { dtype: 'float32', shape: [width], range: [0, 1] },
    classes,
    batch(values) {
      const answers = new Float64Array(values.length * width);
      values.forEach((value, row) => {
        for (const name of namesIn(value) ?? []) answers[row * width + places.get(name)!] = 1;
      });
      return tensorFromNumbers('float32', [values.length, width], answers);
    },
  };
}

/** undefined for a value that is neither a name nor a list of names. */
function namesIn(value: unknown): readonly string[] | undefined {
  if (typeof value === 'string') return isNumber(value) ? undefined : [value];
  if (!Array.isArray(value)) return undefined;
  return value.every((one) => typeof one === 'string' && one !== '') ? value : undefined;
}

function isNumber(text: string): boolean {
  return text.trim() !== '' && Number.isFinite(Number(text));
}
