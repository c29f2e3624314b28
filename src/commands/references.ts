/** The models that a merged one is held against: with its adapters beside the weights, and without them. */
import { dirname } from 'node:path';
import { restoreTensors } from '../adapters/edit/replaced.js';
import { OnnxLoraError } from '../errors.js';
import type { FloatName } from '../onnx/dtype.js';
import { collect, MessageEdit, type Piece } from '../onnx/edit.js';
import { floatTypeOf } from '../onnx/tensor.js';
import type { ModelSource } from '../runtime/compare.js';
import type { Verification } from '../runtime/verification.js';
import { apart, runsApart } from './apart.js';
import { withReadBack, withWeights } from './read-back.js';
import { type MergeOptions, rescaling, type Unmerged, withUnmerged } from './unmerged.js';
import { removeAdapters, removeBiases } from './unpatch.js';
import { verifyOn } from './verify.js';

/** A fold to check. */
export interface CheckOfFold extends MergeOptions {
  /** Whether weights were rounded to integers again; default false. */
  readonly requantized?: boolean;
}

/**
 * Checks a merged model; where data files are mapped for that, in a process of its own, which opens and
 * edits the model for itself.
 */
export async function verifyMerged(
  unmerged: Unmerged,
  path: string,
  output: string,
  options: CheckOfFold,
): Promise<Verification> {
  if (!runsApart(output)) return await runMerged(unmerged, path, output, options);
  return await apart({
    work: 'verify-merged',
    paths: [path, output],
    options,
    label: `the check of ${output}`,
    advice: () => 'Merge again; `verify: false` leaves the check out.',
    stop: 'kill',
  });
}

/** As `verifyMerged`, for the files alone, in this process. */
export function verifyMergedHere(
  path: string,
  output: string,
  options: CheckOfFold,
): Promise<Verification> {
  return withUnmerged(path, options, (unmerged) => runMerged(unmerged, path, output, options));
}

/** Runs the model with its adapters, without them, and the merged one, on the same inputs. */
async function runMerged(
  unmerged: Unmerged,
  path: string,
  output: string,
  options: CheckOfFold,
): Promise<Verification> {
  if (options.requantized) return await runRequantized(unmerged, output, options);
  const { model } = unmerged.opened;
  const isUnchanged = options.adapter === undefined && (options.scale ?? 1) === 1;
  const whole = [{ source: model.source, ...model.range }];
  const reference = isUnchanged ? { path } : await sourceOf(whole, path);
  const base = await sourceOf(withoutAdapters(unmerged).pieces(), path);
  const runs = { base, nudged: () => nudged(unmerged, path) };
  return await verifyOn(model, reference, { path: output }, { ...options, ...runs });
}

/**
 * As `runMerged`, for weights in integers: they are read back from the file, and the reference multiplies
 * with what was read, in floats. Its difference from the file is rounding alone.
 */
async function runRequantized(
  unmerged: Unmerged,
  output: string,
  options: CheckOfFold,
): Promise<Verification> {
  const { model } = unmerged.opened;
  return await withReadBack(unmerged, output, options, async (reference, weights) => {
    const found = await verifyOn(model, { path: reference }, { path: output }, options);
    return withWeights(found, weights);
  });
}

/** The same model with nothing in the place of what is to be folded: heads stay, they are nodes. */
function withoutAdapters({ opened, name }: Unmerged): MessageEdit {
  const { model, patched } = opened;
  const sets = patched.chosenSets(name);
  const edit = new MessageEdit(model.source, model.range);
  removeAdapters(patched, sets, edit);
  removeBiases(patched, sets, edit);
  restoreTensors(patched, sets, edit);
  return edit;
}

/**
 * The model with adapters that are stronger by one part in a few thousand: all its roundings fall
 * otherwise, and little else changes. undefined for adapters without a
 * scale (DoRA).
 */
async function nudged(unmerged: Unmerged, path: string): Promise<ModelSource | undefined> {
  try {
    const edit = rescaling(unmerged, 1 + nudgeFor(unmerged));
    return await sourceOf(edit.pieces(), path);
  } catch (error) {
    if (error instanceof OnnxLoraError && error.code === 'unsupported') return undefined;
    throw error;
  }
}

async function sourceOf(pieces: readonly Piece[], path: string): Promise<ModelSource> {
  return { bytes: await collect(pieces), externalFolder: dirname(path) };
}

/** Enough to change the scale of every adapter in its own type. */
function nudgeFor({ opened: { model, patched }, name }: Unmerged): number {
  const adapters = patched.chosenSets(name).flatMap((set) => set.adapters);
  const dtypes = adapters.map(({ scaleTensor }) =>
    floatTypeOf(patched.initializer(scaleTensor), model),
  );
  return Math.max(...dtypes.map((dtype) => NUDGES[dtype]), NUDGES.float32);
}

const NUDGES: Readonly<Record<FloatName, number>> = {
  bfloat16: 2 ** -6,
  float16: 2 ** -9,
  float32: 2 ** -12,
  float64: 2 ** -12,
};
