import { tensorFromNumbers } from '../../runtime/tensor-value.js';
import type { SampleSpec } from '../dataset.js';
import { DEFAULT_IGNORE_INDEX } from '../ignore-index.js';
import { BadRow } from './bad-row.js';
import { brief } from './brief.js';
import { ClassNames } from './class-names.js';
import type { LabelCollector, LabelOptions, Labels } from './label-collector.js';

/**
 * One class a row. Where all labels are whole numbers, they are the numbers of classes; else they are
 * names, which are numbered in their order.
 */
export function classLabels({ classes, ignoreIndex }: LabelOptions): LabelCollector {
  const ignored = ignoreIndex ?? DEFAULT_IGNORE_INDEX;
  const names = new ClassNames(classes);
  let areNumbers = classes === undefined;
  return {
    note(value) {
      const name = nameOf(value);
      if (classes && isNumberOf(classes, name, ignored)) return;
      areNumbers &&= isWhole(name);
      names.note(name);
    },
    finish: () =>
      areNumbers ? numbered(names.names.map(Number), ignored) : named(names.names, ignored),
  };
}

function isWhole(text: string): boolean {
  return /^-?\d{1,15}$/.test(text);
}

/** Numbers denote classes with names, too, unless they are names themselves. */
function isNumberOf(classes: readonly string[], name: string, ignored: number): boolean {
  if (!isWhole(name) || classes.includes(name)) return false;
  const number = Number(name);
  return number === ignored || (number >= 0 && number < classes.length);
}

function numbered(found: readonly number[], ignored: number): Labels {
  const counted = found.filter((label) => label !== ignored);
  const range = [Math.min(...counted), Math.max(...counted)] as const;
  const spec: SampleSpec = { dtype: 'int64', shape: [], ...(counted.length > 0 ? { range } : {}) };
  return { key: 'labels', spec, batch: (values) => tensorOf(values.map(nameOf).map(Number)) };
}

function named(classes: readonly string[], ignored: number): Labels {
  const numbers = new Map(classes.map((name, i) => [name, i]));
  const numberOf = (name: string) =>
    isNumberOf(classes, name, ignored) ? Number(name) : numbers.get(name)!;
  return {
    key: 'labels',
    spec: { dtype: 'int64', shape: [], range: [0, classes.length - 1] },
    classes,
    batch: (values) => tensorOf(values.map(nameOf).map(numberOf)),
  };
}

function tensorOf(labels: readonly number[]) {
  return tensorFromNumbers('int64', [labels.length], Float64Array.from(labels));
}

function nameOf(value: unknown): string {
  if (typeof value === 'boolean') return String(value);
  if (typeof value === 'string' && value !== '') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value);
  throw new BadRow(
    `its label is ${brief(value)}, expected the name or the number of a class`,
    'For numbers that are not classes use `loss` mse, for several classes a row `loss` bce.',
  );
}
