/** What images are labelled with, as the arrays that a loss reads. */
import { OnnxLoraError } from '../../../errors.js';
import type { TensorValue } from '../../../runtime/tensor-value.js';
import type { LossName } from '../../losses/index.js';
import type { Characters } from '../characters.js';
import type { SampleSpec } from '../dataset.js';

/** What samples are compared with, as arrays by key. */
export interface Targets {
  readonly keys: ReadonlyMap<string, SampleSpec>;
  batch(indices: readonly number[], key: string): TensorValue;
}

/** What a label stands for, or what is wrong with it. */
export type Encoded = { readonly value: number | readonly number[] } | { readonly problem: string };

/** How the labels of a loss become numbers. */
export interface TargetKind {
  encode(label: string): Encoded;
  /** The arrays of labels that were encoded. */
  targets(values: readonly (number | readonly number[])[]): Targets;
}

/**
 * The kind of target that a loss compares images with.
 * @param classes names in their order, for cross-entropy
 * @param characters for ctc
 * @throws OnnxLoraError `unsupported` for a loss that wants more than a label
 */
export function targetKind(
  loss: LossName,
  classes: readonly string[],
  characters: Characters | undefined,
): TargetKind {
  if (loss === 'cross-entropy') return classTarget(classes);
  if (loss === 'mse') return numberTarget;
  if (loss === 'ctc' && characters) return textTarget(characters);
  throw new OnnxLoraError('unsupported', `images with a label each cannot train ${loss}`, {
    hint:
      loss === 'ctc'
        ? 'Name the file of characters, one a line, with --dictionary.'
        : 'They can train cross-entropy, mse and ctc. For others save arrays in a .safetensors file.',
  });
}

function classTarget(classes: readonly string[]): TargetKind {
  const numbers = new Map(classes.map((name, i) => [name, i]));
  return {
    encode(label) {
      const value = numbers.get(label);
      if (value !== undefined) return { value };
      return { problem: `the class ${JSON.stringify(label)} is not one of ${listed(classes)}` };
    },
    targets: (values) => scalars('labels', 'int64', values as readonly number[]),
  };
}

const MAX_LISTED = 8;

function listed(names: readonly string[]): string {
  const shown = names.slice(0, MAX_LISTED).map((name) => JSON.stringify(name));
  return `${shown.join(', ')}${names.length > MAX_LISTED ? ' and others' : ''}`;
}

const numberTarget: TargetKind = {
  encode(label) {
    const value = label.trim() === '' ? Number.NaN : Number(label);
    if (Number.isFinite(value)) return { value };
    return { problem: `the label ${JSON.stringify(label)} is no number` };
  },
  targets: (values) => scalars('target', 'float32', values as readonly number[]),
};

function scalars(key: string, dtype: 'int64' | 'float32', values: readonly number[]): Targets {
  return {
    keys: new Map([[key, { dtype, shape: [] }]]),
    batch(indices) {
      const dims = [indices.length];
      const picked = indices.map((i) => values[i]!);
      if (dtype === 'float32') return { dtype, dims, data: Float32Array.from(picked) };
      return { dtype, dims, data: BigInt64Array.from(picked, BigInt) };
    },
  };
}

/** Rows padded with 0 behind their lengths, as ctc reads them. */
function textTarget(characters: Characters): TargetKind {
  return {
    encode(label) {
      const value = characters.encode(label);
      if (Array.isArray(value)) {
        return value.length > 0 ? { value } : { problem: 'the label is empty' };
      }
      const { unknown, dictionary } = value as { unknown: string; dictionary: string };
      return { problem: `${dictionary} has no ${JSON.stringify(unknown)}, which the label holds` };
    },
    targets: (values) => sequences(values as readonly (readonly number[])[]),
  };
}

function sequences(rows: readonly (readonly number[])[]): Targets {
  const longest = rows.reduce((most, row) => Math.max(most, row.length), 1);
  const lengths = scalars(
    'label_lengths',
    'int64',
    rows.map((row) => row.length),
  );
  return {
    keys: new Map([['labels', { dtype: 'int64', shape: [longest] }], ...lengths.keys]),
    batch(indices, key) {
      if (key === 'label_lengths') return lengths.batch(indices, key);
      const data = new BigInt64Array(indices.length * longest);
      indices.forEach((sample, row) => {
        data.set(rows[sample]!.map(BigInt), row * longest);
      });
      return { dtype: 'int64', dims: [indices.length, longest], data };
    },
  };
}
