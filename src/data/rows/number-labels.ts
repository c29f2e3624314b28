import { tensorFromNumbers } from '../../runtime/tensor-value.js';
import { BadRow } from './bad-row.js';
import { brief } from './brief.js';
import type { LabelCollector } from './label-collector.js';

/** A number a row, or a list of them that is as long in every row. */
export function numberLabels(key: 'target' | 'teacher'): LabelCollector {
  let shape: readonly number[] | undefined;
  let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  return {
    note(value) {
      const found = Array.isArray(value) ? [value.length] : [];
      const numbers = numbersOf(value);
      if (shape && found.join() !== shape.join()) {
        throw new BadRow(`its label is ${show(found)}, those before are ${show(shape)}`);
      }
      shape ??= found;
      least = Math.min(least, ...numbers);
      most = Math.max(most, ...numbers);
    },
    finish: () => ({
      key,
      spec: { dtype: 'float32', shape: shape ?? [], range: [least, most] },
      batch: (values) => {
        const numbers = Float64Array.from(values.flatMap(numbersOf));
        return tensorFromNumbers('float32', [values.length, ...(shape ?? [])], numbers);
      },
    }),
  };
}

function show([length]: readonly number[]): string {
  return length === undefined ? 'a number' : `a list of ${length}`;
}

function numbersOf(value: unknown): number[] {
  return (Array.isArray(value) ? value : [value]).map(numberOf);
}

function numberOf(value: unknown): number {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  if (typeof number === 'boolean') return Number(number);
  if (typeof number === 'number' && Number.isFinite(number)) return number;
  throw new BadRow(`its label is ${brief(value)}, expected a number or a list of numbers`);
}
