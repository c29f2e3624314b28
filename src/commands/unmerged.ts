/** The model that a merge starts from: what is to be folded beside its weights. */

import { interpolateTensors, scaleBiases } from '../adapters/edit/replaced.js';
import type { AdapterFile } from '../adapters/files/adapter-file.js';
import { kindOf } from '../adapters/kinds/index.js';
import {
  type ModelManifest,
  type PatchedAdapter,
  replaceManifest,
} from '../adapters/model/manifest.js';
import { type OpenedModel, withModel } from '../adapters/model/opened.js';
import type { PatchedModel } from '../adapters/model/patched.js';
import { finiteBytes } from '../adapters/structure/finite.js';
import { OnnxLoraError } from '../errors.js';
import { MessageEdit } from '../onnx/edit.js';
import type { Model } from '../onnx/model.js';
import { setTensorData } from '../onnx/rewrite.js';
import { floatTypeOf } from '../onnx/tensor.js';
import type { MergeOptions } from './options/merge.js';

export type { MergeOptions };

export interface Unmerged {
  readonly opened: OpenedModel;
  /** The set to fold; undefined for all. */
  readonly name: string | undefined;
  readonly unmatched?: readonly string[] | undefined;
}

/**
 * Opens the model at `path` with what is to be folded beside its weights, scaled as the fold is to be. It is
 * closed when `use` is done with it.
 */
export async function withUnmerged<T>(
  path: string,
  options: MergeOptions,
  use: (unmerged: Unmerged) => Promise<T>,
): Promise<T> {
  return await withModel(path, async (opened) => use(await unmergedOf(opened, options)));
}

async function unmergedOf(opened: OpenedModel, options: MergeOptions): Promise<Unmerged> {
  const { adapter, name, scale = 1 } = options;
  const unmerged: Unmerged =
    adapter === undefined ? { opened, name } : await withAdapters(opened, adapter, options);
  if (scale === 1) return unmerged;
  return { ...unmerged, opened: await unmerged.opened.edited(rescaling(unmerged, scale)) };
}

/** The model with the adapters of a file, and the name of their set. */
async function withAdapters(
  opened: OpenedModel,
  path: string,
  options: MergeOptions,
): Promise<Unmerged> {
  const { insertFile } = await import('./apply.js');
  const { openAdapter } = await import('../adapters/files/open-adapter.js');
  const { withoutSlots } = await import('../adapters/slots/remove.js');
  const base = await withoutSlots(opened);
  const file = openAdapter(path);
  try {
    if ((options.scale ?? 1) < 0) checkUndoable(file);
    const name = unusedSet(base.patched, file.set);
    const { edit, unmatched } = insertFile(base.patched, file, name, options);
    return { opened: await base.edited(edit), name, unmatched };
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

/** Other scales for the adapters of a model, and other shares of the tensors they replace, as an edit. */
export function rescaling({ opened, name }: Unmerged, factor: number): MessageEdit {
  const { model, patched, reader } = opened;
  const edit = new MessageEdit(model.source, model.range);
  const sets = patched.chosenSets(name);
  for (const set of sets) rescale(patched, set, edit, factor);
  interpolateTensors(patched, sets, edit, reader, factor);
  scaleBiases(patched, sets, edit, reader, factor);
  return edit;
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
  const lasting = factor < 0 && set.adapters.find((adapter) => kindOf(adapter).notUndoable);
  if (lasting) throw notUndoable(model, lasting);
  const adapters = set.adapters.map((one) => ({ ...one, scale: one.scale * factor }));
  for (const { scale, scaleTensor } of adapters) {
    const tensor = patched.initializer(scaleTensor);
    const dtype = floatTypeOf(tensor, model);
    const bytes = finiteBytes(
      dtype,
      Float64Array.of(scale),
      `with \`scale\` ${factor}, ${scaleTensor}`,
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
    { node, hint: 'Merge without `scale`.' },
  );
}

function notUndoable({ source }: Model, adapter: PatchedAdapter): OnnxLoraError {
  const { label, notUndoable: reason } = kindOf(adapter);
  const node = adapter.sites[0]!.node;
  return new OnnxLoraError(
    'unsupported',
    `${source.label}: the adapter ${adapter.name} is ${label}, which ${reason}`,
    { node, hint: 'Go back to the model that it was folded into.' },
  );
}

function unusedSet({ sets }: PatchedModel, wanted: string): string {
  let name = wanted;
  while (sets.some(({ set }) => set === name)) name += '_';
  return name;
}
