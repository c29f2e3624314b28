/** Labels of images, as the arrays that a loss reads. */

import { OnnxLoraError } from '../../errors.js';
import type { TensorValue } from '../../runtime/tensor-value.js';
import { Characters } from '../characters.js';
import { readClassFile } from '../classes.js';
import type { SampleSpec } from '../dataset.js';
import { askerOf } from '../label-kind.js';
import type { DataRequest } from '../request.js';
import { BadRow } from '../rows/bad-row.js';
import { brief } from '../rows/brief.js';
import { labelCollector } from '../rows/labels.js';

/** The labels of all samples, as arrays by key. */
export interface Targets {
  readonly keys: ReadonlyMap<string, SampleSpec>;
  /** By number, where labels are classes. */
  readonly classes?: readonly string[] | undefined;
  batch(samples: readonly number[], key: string): TensorValue;
}

/** Sees the labels of images in their order. */
export interface TargetCollector {
  /** @throws BadRow for a value that is not a label; it is not counted */
  add(label: unknown): void;
  /** @param kept which of the labels are those of samples, by their numbers */
  finish(kept: readonly number[]): Targets;
}

/**
 * The collector for the kind of labels.
 * @throws OnnxLoraError `unsupported` for labels that images cannot have, `invalid-argument` for
 * spelling without a dictionary, and those of reading dictionaries and class files
 */
export function targetCollector(request: DataRequest): TargetCollector {
  const { labelKind, labels, classes, ignoreIndex, blank } = request;
  if (labelKind === 'spelling') return transcripts(Characters.read(dictionaryOf(request), blank));
  const known = labels === undefined ? classes : readClassFile(labels);
  const collector = labelCollector(labelKind, { classes: known, ignoreIndex });
  if (!collector) {
    throw new OnnxLoraError(
      'unsupported',
      `images with a label each cannot train with ${askerOf(request)}`,
      {
        hint: 'A label of an image is a class, a set of classes, a number or a text. For others save arrays in a .safetensors file.',
      },
    );
  }
  const values: unknown[] = [];
  return {
    add(label) {
      collector.note(label);
      values.push(label);
    },
    finish(kept) {
      const found = collector.finish();
      return {
        keys: new Map([[found.key, found.spec]]),
        classes: found.classes,
        batch: (samples) => found.batch(samples.map((sample) => values[kept[sample]!])),
      };
    },
  };
}

function dictionaryOf(request: DataRequest): string {
  if (request.dictionary !== undefined) return request.dictionary;
  throw new OnnxLoraError(
    'invalid-argument',
    `${askerOf(request)} needs the characters that the classes are`,
    { hint: 'Name a file with a character on each line with `dictionary`.' },
  );
}

/** Rows padded with 0 after their lengths, as spelling is read. */
function transcripts(characters: Characters): TargetCollector {
  const rows: (readonly number[])[] = [];
  return {
    add(label) {
      rows.push(encoded(characters, label));
    },
    finish(kept) {
      const longest = rows.reduce((most, row) => Math.max(most, row.length), 1);
      return {
        keys: new Map([
          ['labels', { dtype: 'int64', shape: [longest] }],
          ['label_lengths', { dtype: 'int64', shape: [] }],
        ]),
        batch(samples, key) {
          const wanted = samples.map((sample) => rows[kept[sample]!]!);
          return key === 'labels' ? padded(wanted, longest) : lengths(wanted);
        },
      };
    },
  };
}

function encoded(characters: Characters, label: unknown): number[] {
  if (typeof label !== 'string' || label === '') {
    throw new BadRow(`its label is ${brief(label)}, expected a text`);
  }
  const numbers = characters.encode(label);
  if (Array.isArray(numbers)) return numbers;
  const { unknown, dictionary } = numbers as { unknown: string; dictionary: string };
  throw new BadRow(
    `its label holds ${JSON.stringify(unknown)}, which is not in ${dictionary}`,
    unknown === ' ' ? 'Some models have a space after their dictionary: add a line with one.' : '',
  );
}

function padded(rows: readonly (readonly number[])[], longest: number): TensorValue {
  const data = new BigInt64Array(rows.length * longest);
  rows.forEach((row, i) => {
    data.set(row.map(BigInt), i * longest);
  });
  return { dtype: 'int64', dims: [rows.length, longest], data };
}

function lengths(rows: readonly (readonly number[])[]): TensorValue {
  const data = BigInt64Array.from(rows, (row) => BigInt(row.length));
  return { dtype: 'int64', dims: [rows.length], data };
}
