/** Looks at every number of a dataset, a piece at a time. */
import { OnnxLoraError } from '../errors.js';
import { byteLength, type DataTypeName, isFloating } from '../onnx/dtype.js';
import { elementCount } from '../onnx/model.js';
import type { WorkOptions } from '../onnx/write.js';
import { type TensorValue, tensorFromNumbers, tensorToFloat64 } from '../runtime/tensor-value.js';
import { convertTensor, type Feed } from './convert.js';
import type { Dataset } from './dataset.js';

/** Numbers in memory at a time, unless one sample has more. */
const CHUNK_BYTES = 2 ** 20;

/** Some samples of one key. */
export interface Column {
  /** As the file has them. */
  readonly given: Float64Array;
  /** As the graph takes them; the same array where nothing has to be converted. */
  readonly taken: Float64Array;
  /** Elements of one sample. */
  readonly width: number;
}

/** Something wrong with one sample. */
export interface Fault {
  readonly key: string;
  /** Counted from the first sample that was looked at. */
  readonly row: number;
  /** Position within the sample. */
  readonly element: number;
  readonly found: number;
  /** Completes "expected ..". */
  readonly expected: string;
}

/** A sample that no training has a use for, and what it holds. */
export interface BadSample {
  readonly sample: number;
  readonly problem: string;
}

/** Rules for the numbers of some keys. */
export interface Rule {
  readonly feeds: readonly Feed[];
  /** The first fault in some samples; columns are in the order of `feeds`. */
  find(columns: readonly Column[]): Fault | undefined;
  /** Samples that are bad rows where they are rows of a file; of those there is no remark. */
  bad?(): readonly BadSample[];
  /** Problems that are known after all samples. */
  lack?(): string | undefined;
  /** Notes for people, after all samples. */
  remark?(): string | undefined;
}

export interface ScanOptions extends WorkOptions {
  /** Remarks for people. */
  readonly onNote?: ((text: string) => void) | undefined;
}

/**
 * Reads every key that a rule looks at once, from the first sample to the last. Where the range of all
 * of a rule's keys is known, their ends represent the numbers.
 * @throws OnnxLoraError `invalid-data` naming file, key, sample and element of the first fault;
 * `aborted`
 */
export async function scan(
  dataset: Dataset,
  all: readonly Rule[],
  { signal, onProgress, onNote }: ScanOptions = {},
): Promise<void> {
  const rules = all.filter((rule) => !checkRanges(dataset, rule));
  const feeds = new Map(rules.flatMap((rule) => rule.feeds.map((feed) => [feed.key, feed])));
  const total = dataset.size;
  const step = samplesPerChunk(dataset, [...feeds.keys()]);
  for (let start = 0; start < total && feeds.size > 0; start += step) {
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
    const end = Math.min(start + step, total);
    const columns = await readColumns(dataset, feeds, start, end);
    for (const rule of rules) {
      const fault = rule.find(rule.feeds.map(({ key }) => columns.get(key)!));
      if (fault) throw faultError(dataset, { ...fault, row: start + fault.row });
    }
    onProgress?.({ phase: 'checking the data', done: end, total, unit: 'samples' });
  }
  const lack = rules.map((rule) => rule.lack?.()).find((problem) => problem !== undefined);
  if (lack) throw new OnnxLoraError('invalid-data', `${dataset.label}: ${lack}`);
  for (const rule of rules) {
    const remark = leftOut(dataset, rule.bad?.() ?? []) ?? rule.remark?.();
    if (remark !== undefined) onNote?.(`${dataset.label}: ${remark}`);
  }
}

/** Skipped samples that are named one by one. */
const NAMED = 3;

/**
 * Leaves out bad rows, and samples of arrays where that was asked for.
 * @returns what is said of them; undefined for arrays that stay whole
 */
function leftOut(dataset: Dataset, bad: readonly BadSample[]): string | undefined {
  const [first] = bad;
  const areRows = dataset.placeOf !== undefined;
  if (!first || (!areRows && !dataset.leaveOut)) return undefined;
  const placeOf = (sample: number) => dataset.placeOf?.(sample) ?? `sample ${sample}`;
  const places = bad.slice(0, NAMED).map(({ sample }) => placeOf(sample));
  if (!dataset.leaveOut) {
    throw new OnnxLoraError(
      'invalid-data',
      `${places[0]}: ${first.problem}, expected a frame for each label and one between two that are the same`,
      { hint: 'Correct the row, or leave out all that are bad with `skipBadRows: true`.' },
    );
  }
  dataset.leaveOut(bad.map(({ sample }) => sample));
  const more = bad.length > NAMED ? ', ..' : '';
  return `${bad.length} bad ${bad.length === 1 ? 'row is' : 'rows are'} left out, for the frames cannot spell the labels: ${places.join(', ')}${more}`;
}

/** @returns false where the numbers have to be read */
function checkRanges(dataset: Dataset, rule: Rule): boolean {
  const columns = rule.feeds.map(({ key, dtype }) => {
    const range = dataset.keys.get(key)!.range;
    return range && columnOf(tensorFromNumbers('float64', [2], Float64Array.from(range)), dtype);
  });
  if (!columns.every((column) => column !== undefined)) return false;
  const fault = rule.find(columns);
  if (!fault) return true;
  const [least, most] = dataset.keys.get(fault.key)!.range!;
  const message = `${dataset.label}: key ${fault.key} holds ${least} to ${most}, expected ${fault.expected}`;
  throw new OnnxLoraError('invalid-data', message, { hint: rangeHint(fault.key) });
}

function rangeHint(key: string): string {
  return key === 'labels'
    ? 'The model needs an output for each class: see `head: linear:CLASSES`. Or are these the labels of another model?'
    : 'Is it the tokenizer of this model? Longer texts are cut with `maxLength`.';
}

function samplesPerChunk({ keys }: Dataset, wanted: readonly string[]): number {
  const specs = wanted.map((key) => keys.get(key)!);
  const bytes = specs.map(({ dtype, shape }) => byteLength(dtype, elementCount(shape)));
  return Math.max(1, Math.floor(CHUNK_BYTES / Math.max(1, ...bytes)));
}

async function readColumns(
  dataset: Dataset,
  feeds: ReadonlyMap<string, Feed>,
  start: number,
  end: number,
): Promise<Map<string, Column>> {
  const indices = Array.from({ length: end - start }, (_, i) => start + i);
  const batch = await dataset.batch(indices, feeds.keys());
  const columns = new Map<string, Column>();
  for (const [key, value] of batch) columns.set(key, columnOf(value, feeds.get(key)!.dtype));
  return columns;
}

function columnOf(value: TensorValue, dtype: DataTypeName): Column {
  const given = tensorToFloat64(value);
  // Integers are only widened.
  const isSame = value.dtype === dtype || !isFloating(dtype);
  const taken = isSame ? given : tensorToFloat64(convertTensor(value, dtype));
  return { given, taken, width: elementCount(value.dims.slice(1)) };
}

function faultError(
  dataset: Dataset,
  { key, row, element, found, expected }: Fault,
): OnnxLoraError {
  const { shape } = dataset.keys.get(key)!;
  const place = shape.length === 0 ? '' : `, element [${positionOf(element, shape).join(', ')}]`;
  const message = `${dataset.label}: key ${key}, sample ${row}${place}: found ${found}, expected ${expected}`;
  return new OnnxLoraError('invalid-data', message, {
    hint: 'Samples and elements are counted from 0. Correct the value, or leave the sample out.',
  });
}

/** Row-major position of a flat index. */
function positionOf(index: number, shape: readonly number[]): number[] {
  let rest = index;
  return shape
    .toReversed()
    .map((size) => {
      const position = rest % size;
      rest = Math.floor(rest / size);
      return position;
    })
    .toReversed();
}
