/** Which array of a dataset goes into which input of the graph. */
import { distance } from 'fastest-levenshtein';
import { OnnxLoraError } from '../errors.js';
import type { ValueSpec } from '../graph/builder.js';
import { type DataTypeName, isFloating } from '../onnx/dtype.js';
import type { Dim } from '../onnx/model.js';
import { type Feed, type FeedPlan, isTaken, type OwnLabels } from './convert.js';
import type { Dataset, SampleSpec } from './dataset.js';
import { DEFAULT_IGNORE_INDEX } from './ignore-index.js';
import { askerOf } from './label-kind.js';
import type { GraphNeeds } from './needs.js';

/** Losses read one of them, and files have the other. */
const ALIASES: Readonly<Record<string, string>> = { labels: 'target', target: 'labels' };

/**
 * Finds the key of every input by its name; `labels` and `target` may replace each other where the file
 * has one of them. Where tokens are the labels and the file has none, they are the model's own `input_ids`,
 * as far as `attention_mask` is not 0; spelling without `input_lengths` gets all frames. Samples that are
 * compared may be [2, ..], an anchor and its positive, or [3, ..], with a negative.
 * @throws OnnxLoraError `invalid-data` naming file and key for an input without a key, and for a key
 * of another type or shape than the input's
 */
export function matchKeys(dataset: Dataset, needs: GraphNeeds): FeedPlan {
  const own = ownLabels(dataset, needs);
  const allFrames = needs.labelKind === 'spelling' && !dataset.keys.has('input_lengths');
  const made = [...(own ? ['labels'] : []), ...(allFrames ? ['input_lengths'] : [])];
  const lossInputs = needs.lossInputs.filter(({ name }) => !made.includes(name));
  const sizes = new Map<string, Sized>();
  const match = (spec: ValueSpec, what: string, isTarget: boolean): Feed => {
    const key = keyOf(dataset, spec, what);
    const found = dataset.keys.get(key)!;
    const dtype = checkType(dataset, key, found, spec, what, isTarget);
    const group = needs.labelKind === 'pairs' ? groupOf(found.shape, spec.shape) : 1;
    const shape = group > 1 ? found.shape.slice(1) : found.shape;
    const wanted = isTarget ? (spec.shape ?? targetShape(shape, needs)) : spec.shape;
    checkShape(dataset, key, shape, wanted, what);
    checkSymbols(dataset, key, shape, wanted, sizes);
    return { name: spec.name, key, dtype, group };
  };
  const feeds = [
    ...needs.inputs.map((spec) => match(spec, "the model's input", false)),
    ...lossInputs.map((spec) => match(spec, askerOf(needs), true)),
  ];
  checkGroups(dataset, feeds);
  return { feeds, ownLabels: own, allFrames };
}

function ownLabels(dataset: Dataset, needs: GraphNeeds): OwnLabels | undefined {
  if (needs.labelKind !== 'tokens' || findKey(dataset, 'labels') !== undefined) return undefined;
  const { ignoreIndex = DEFAULT_IGNORE_INDEX } = needs;
  const find = (wanted: string) => needs.inputs.find(({ name }) => name === wanted)?.name;
  const [ids, mask] = [find('input_ids'), find('attention_mask')];
  return ids === undefined ? undefined : { ids, mask, ignoreIndex };
}

function keyOf(dataset: Dataset, { name }: ValueSpec, what: string): string {
  const key = findKey(dataset, name);
  if (key !== undefined) return key;
  const keys = [...dataset.keys.keys()];
  const wanted = what.endsWith('input') ? `${what} ${name}` : what;
  const near = keys.filter((other) => isNear(name, other)).slice(0, 3);
  const meant = near.length > 0 ? `Is it ${near.join(' or ')}? ` : '';
  throw invalid(
    `${dataset.label} has no key ${name} for ${wanted}, it has: ${keys.join(', ')}`,
    `${meant}Save an array under the name of every input of the model and of the loss.`,
  );
}

function findKey(dataset: Dataset, name: string): string | undefined {
  const alias = Object.hasOwn(ALIASES, name) ? ALIASES[name] : undefined;
  return [name, alias].find((key) => key !== undefined && dataset.keys.has(key));
}

/** A slip of the pen, or a name with something before it, as in `input.ids`. */
function isNear(wanted: string, key: string): boolean {
  const [a, b] = [wanted.toLowerCase(), key.toLowerCase()];
  const slips = distance(a, b);
  return b.includes(a) || a.includes(b) || (slips <= Math.ceil(a.length / 3) && slips < a.length);
}

/**
 * Number of rows of an input that make a sample: 2 or 3 for samples of as many axes as the input, a pair or
 * triple of texts to compare; else 1.
 */
export function groupOf(sample: readonly number[], input: readonly Dim[] | null): number {
  const [first] = sample;
  return sample.length === input?.length && (first === 2 || first === 3) ? first : 1;
}

const GROUPS = ['single rows', 'pairs', 'triples'];

function checkGroups({ label }: Dataset, feeds: readonly Feed[]): void {
  const [first] = feeds;
  const other = feeds.find(({ group }) => group !== first!.group);
  if (!other) return;
  const kind = ({ group }: Feed) => GROUPS[group - 1];
  throw invalid(
    `${label}: key ${first!.key} holds ${kind(first!)}, key ${other.key} holds ${kind(other)}`,
    'Save every input as [pairs, 2, ..]: an anchor and its positive; or all as [triples, 3, ..].',
  );
}

/** A target may leave out a last axis of size 1, and then the loss says no shape. */
function targetShape(found: readonly number[], { output }: GraphNeeds): readonly Dim[] | null {
  const { shape } = output;
  return shape?.at(-1) === 1 && found.length < shape.length - 1 ? shape.slice(0, -1) : shape;
}

/** Integers are taken for float targets: answers are often saved as 0 and 1. */
function checkType(
  { label }: Dataset,
  key: string,
  { dtype: found }: SampleSpec,
  { name, dtype }: ValueSpec,
  what: string,
  isTarget: boolean,
): DataTypeName {
  if (dtype === undefined) {
    const hint = 'Export the model with tensors as inputs.';
    throw invalid(`${what} ${name} is not a tensor of numbers, so ${label} cannot feed it`, hint);
  }
  if (isTaken(found, dtype)) return dtype;
  if (isTarget && isFloating(dtype) && !isFloating(found)) return dtype;
  throw invalid(
    `${label}: key ${key} holds ${found}, ${what} takes ${dtype}`,
    `Save it as ${dtype}. Integers are only widened, and floats are only taken for floats.`,
  );
}

function checkShape(
  { label, size }: Dataset,
  key: string,
  found: readonly number[],
  wanted: readonly Dim[] | null,
  what: string,
): void {
  const fits =
    !wanted ||
    (wanted.length === found.length + 1 &&
      found.every((length, axis) => {
        const dim = wanted[axis + 1];
        return typeof dim !== 'number' || dim === length;
      }));
  if (fits) return;
  throw invalid(
    `${label}: key ${key} has shape ${show([size, ...found])}, ${what} takes ${show(wanted)}`,
    'Save it as the model takes it, with samples along the first axis.',
  );
}

/** The size of a symbol, and the key that it was first seen in. */
interface Sized {
  readonly size: number;
  readonly key: string;
}

/** Axes that the model calls by one name have one size. */
function checkSymbols(
  { label }: Dataset,
  key: string,
  found: readonly number[],
  wanted: readonly Dim[] | null,
  sizes: Map<string, Sized>,
): void {
  wanted?.slice(1).forEach((symbol, axis) => {
    if (typeof symbol !== 'string') return;
    const size = found[axis]!;
    const other = sizes.get(symbol) ?? { size, key };
    sizes.set(symbol, other);
    if (other.size === size) return;
    const both = `key ${other.key} has ${other.size}, key ${key} has ${size}`;
    throw invalid(
      `${label}: the model's axis ${symbol} has one length, but ${both}`,
      'Pad both to the same length.',
    );
  });
}

function show(shape: readonly Dim[]): string {
  return `[${shape.map((dim) => dim ?? '?').join(', ')}]`;
}

function invalid(message: string, hint: string): OnnxLoraError {
  return new OnnxLoraError('invalid-data', message, { hint });
}
