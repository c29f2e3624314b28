/** The model that a merge starts from: what is to be folded beside its weights. */

import { type BindOptions, checkNoBindOptions } from '../adapters/binding/bind-options.js';
import { interpolateTensors, scaleBiases } from '../adapters/edit/replaced.js';
import type { AdapterFile } from '../adapters/files/adapter-file.js';
import { kindOf } from '../adapters/kinds/index.js';
import {
  type ModelManifest,
  type PatchedAdapter,
  replaceManifest,
} from '../adapters/model/manifest.js';
import { PatchedModel } from '../adapters/model/patched.js';
import { finiteBytes } from '../adapters/structure/finite.js';
import { OnnxLoraError } from '../errors.js';
import { MessageEdit } from '../onnx/edit.js';
import { editedModel } from '../onnx/edited-model.js';
import { ExternalFiles } from '../onnx/external.js';
import type { Model } from '../onnx/model.js';
import { openModel } from '../onnx/parse.js';
import { setTensorData } from '../onnx/rewrite.js';
import { floatTypeOf, TensorReader } from '../onnx/tensor.js';
import type { WriteOptions } from '../onnx/write.js';
import type { VerifyOptions } from './verify.js';

export interface MergeOptions extends WriteOptions, VerifyOptions, BindOptions {
  /** Default `<model>.merged.onnx` beside the model. */
  readonly output?: string | undefined;
  /** Folds the adapters of this file instead of those in the model. */
  readonly adapter?: string | undefined;
  /** The adapter set to fold. Default: all. */
  readonly name?: string | undefined;
  /** Multiplies every ΔW, and the difference of every tensor that was replaced. Default 1. */
  readonly scale?: number | undefined;
  /** Run both models and compare. Default true. */
  readonly verify?: boolean | undefined;
}

export interface Unmerged {
  readonly model: Model;
  readonly name: string | undefined;
  readonly unmatched?: readonly string[] | undefined;
}

/**
 * The model with what is to be folded beside its weights, scaled as the fold is to be, and the adapter
 * set that it is; undefined for all.
 */
export async function openUnmerged(path: string, options: MergeOptions): Promise<Unmerged> {
  const { adapter, name, scale = 1 } = options;
  if (adapter !== undefined && name !== undefined) {
    throw new OnnxLoraError(
      'invalid-argument',
      'merge folds the adapters of a file (--adapter) or a set of the model (--name), not both',
    );
  }
  if (!Number.isFinite(Math.fround(scale))) {
    const problem = `scale is ${scale}, expected a finite number that float32 holds, up to 3.4e38`;
    throw new OnnxLoraError('invalid-argument', problem);
  }
  if (adapter === undefined) checkNoBindOptions(options);
  let model = openModel(path);
  try {
    let unmerged: Unmerged = { model, name };
    if (adapter !== undefined) {
      const { withoutSlots } = await import('../adapters/slots/remove.js');
      model = await withoutSlots(model);
      unmerged = await withAdapters(model, adapter, options);
    }
    ({ model } = unmerged);
    if (scale !== 1) model = await rescaled(model, unmerged.name, scale);
    return { ...unmerged, model };
  } catch (error) {
    model.close();
    throw error;
  }
}

/** The model with the adapters of a file, and the name of their set. */
async function withAdapters(model: Model, path: string, options: MergeOptions): Promise<Unmerged> {
  const { insertFile } = await import('./apply.js');
  const { openAdapter } = await import('../adapters/files/open-adapter.js');
  const file = openAdapter(path);
  try {
    if ((options.scale ?? 1) < 0) checkUndoable(file);
    const patched = new PatchedModel(model);
    const name = unusedSet(patched, file.set);
    const { edit, unmatched } = insertFile(patched, file, name, options);
    return { model: await editedModel(model, edit), name, unmatched };
  } finally {
    file.close();
  }
}

/** A negative scale takes back what was folded: that can be done for sums alone. */
function checkUndoable({ path, extras, parameters = [] }: AdapterFile): void {
  const { head, tensors = [] } = extras;
  const replaced = [
    ...tensors.map(({ name }) => name),
    ...parameters.flatMap(({ change, module }) => (change === 'replace' ? [module] : [])),
  ];
  if (!head && replaced.length === 0) return;
  const what = head ? 'a head' : `new numbers of ${replaced[0]}`;
  throw new OnnxLoraError(
    'unsupported',
    `${path} holds ${what}, and not what was in the model before: a fold of it cannot be undone`,
    { hint: 'Go back to the model that it was folded into.' },
  );
}

/** The model with other scales of its adapters, and other shares of the tensors they replace. */
export async function rescaled(
  model: Model,
  name: string | undefined,
  factor: number,
): Promise<Model> {
  const patched = new PatchedModel(model);
  const edit = new MessageEdit(model.source, model.range);
  const files = new ExternalFiles(model);
  try {
    const sets = patched.chosenSets(name);
    for (const set of sets) rescale(patched, set, edit, factor);
    const reader = new TensorReader(model, files);
    interpolateTensors(patched, sets, edit, reader, factor);
    scaleBiases(patched, sets, edit, reader, factor);
    return await editedModel(model, edit);
  } finally {
    files.close();
  }
}

function rescale(
  patched: PatchedModel,
  set: ModelManifest,
  edit: MessageEdit,
  factor: number,
): void {
  const { model } = patched;
  const fixed = set.adapters.find((adapter) => kindOf(adapter).notScalable);
  if (fixed) throw notScalable(model, fixed);
  const adapters = set.adapters.map((one) => ({ ...one, scale: one.scale * factor }));
  for (const { scale, scaleTensor } of adapters) {
    const tensor = patched.initializer(scaleTensor);
    const dtype = floatTypeOf(tensor, model);
    const bytes = finiteBytes(
      dtype,
      Float64Array.of(scale),
      `with --scale ${factor}, ${scaleTensor}`,
    );
    const data = { length: bytes.length, chunks: () => [bytes] };
    setTensorData(edit, { tensor, graph: model.graph }, data);
  }
  replaceManifest(edit, model, { ...set, adapters });
}

function notScalable({ source }: Model, adapter: PatchedAdapter): OnnxLoraError {
  const { name, sites } = adapter;
  const { label, notScalable: reason } = kindOf(adapter);
  const node = sites[0]!.node;
  return new OnnxLoraError(
    'unsupported',
    `${source.label}: the adapter ${name} is ${label}, which ${reason}`,
    { node, hint: 'Merge without --scale.' },
  );
}

function unusedSet({ sets }: PatchedModel, wanted: string): string {
  let name = wanted;
  while (sets.some(({ set }) => set === name)) name += '_';
  return name;
}
