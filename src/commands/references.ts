/** The models that a merged one is held against: with its adapters beside the weights, and without them. */
import { dirname } from 'node:path';
import { restoreTensors } from '../adapters/edit/replaced.js';
import { PatchedModel } from '../adapters/model/patched.js';
import { OnnxLoraError } from '../errors.js';
import type { FloatName } from '../onnx/dtype.js';
import { collect, MessageEdit } from '../onnx/edit.js';
import { editedModel } from '../onnx/edited-model.js';
import type { Model } from '../onnx/model.js';
import { floatTypeOf } from '../onnx/tensor.js';
import type { ModelSource } from '../runtime/compare.js';
import type { Verification } from '../runtime/verification.js';
import { apart, runsApart } from './apart.js';
import { type MergeOptions, openUnmerged, rescaled } from './unmerged.js';
import { removeAdapters, removeBiases } from './unpatch.js';
import { verifyModels } from './verify.js';

/** Checks a merged model; where data files are mapped for that, in a process of its own. */
export async function verifyMerged(
  path: string,
  output: string,
  options: MergeOptions,
): Promise<Verification> {
  if (!runsApart(output)) return await runMerged(path, output, options);
  return await apart({
    work: 'verify-merged',
    paths: [path, output],
    options,
    label: `the check of ${output}`,
    advice: () => 'Merge again; `verify: false` leaves the check out.',
    stop: 'kill',
  });
}

/** Runs the model with its adapters, without them, and the merged one, on the same inputs. */
export async function runMerged(
  path: string,
  output: string,
  options: MergeOptions,
): Promise<Verification> {
  const reference = await withAdapters(path, options);
  const base = await withoutAdapters(path, options);
  const runs = { base, nudged: () => nudged(path, options) };
  return await verifyModels(path, reference, { path: output }, { ...options, ...runs });
}

/** What is to be folded beside the weights, scaled as the fold is. */
async function withAdapters(path: string, options: MergeOptions): Promise<ModelSource> {
  if (options.adapter === undefined && (options.scale ?? 1) === 1) return { path };
  const { model } = await openUnmerged(path, options);
  return await sourceOf(model, path);
}

/** The same model with nothing in the place of what is to be folded: heads stay, they are nodes. */
export async function withoutAdapters(path: string, options: MergeOptions): Promise<ModelSource> {
  const { model, name } = await openUnmerged(path, { ...options, scale: 1 });
  const patched = new PatchedModel(model);
  const sets = patched.chosenSets(name);
  const edit = new MessageEdit(model.source, model.range);
  removeAdapters(patched, sets, edit);
  removeBiases(patched, sets, edit);
  restoreTensors(patched, sets, edit);
  return await sourceOf(await editedModel(model, edit), path);
}

/**
 * The model with adapters that are stronger by one part in a few thousand: all its roundings fall
 * otherwise, and little else changes. undefined for adapters without a
 * scale (DoRA).
 */
async function nudged(path: string, options: MergeOptions): Promise<ModelSource | undefined> {
  const { model, name } = await openUnmerged(path, options);
  try {
    return await sourceOf(await rescaled(model, name, 1 + nudgeFor(model, name)), path);
  } catch (error) {
    model.close();
    if (error instanceof OnnxLoraError && error.code === 'unsupported') return undefined;
    throw error;
  }
}

/** The bytes of an open model, which is closed. */
async function sourceOf(model: Model, path: string): Promise<ModelSource> {
  try {
    const whole = [{ source: model.source, ...model.range }];
    return { bytes: await collect(whole), externalFolder: dirname(path) };
  } finally {
    model.close();
  }
}

/** Enough to change the scale of every adapter in its own type. */
function nudgeFor(model: Model, name: string | undefined): number {
  const patched = new PatchedModel(model);
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
