/**
 * Constants of the model that an adapter set gives other numbers: biases that were trained, a
 * classifier that came with the adapters, weights that an initialisation took something out of. The
 * new tensor takes the name, so that nothing that reads it changes. The model's own is set aside: its
 * record stays in the file under another name, and taking the set out gives it its name back.
 */

import { OnnxLoraError } from '../errors.js';
import { storedTensor } from '../graph/constants.js';
import type { NameAuthority } from '../graph/names.js';
import type { MessageEdit } from '../onnx/edit.js';
import { initializerRecord, inputRecord, type NewTensor } from '../onnx/encode.js';
import type { TensorPlace } from '../onnx/external.js';
import { nodeLabel } from '../onnx/model.js';
import { addInitializer, renameTensor } from '../onnx/rewrite.js';
import { dtypeOf } from '../onnx/tensor.js';
import type { ModelManifest, Replacement } from './manifest.js';
import type { PatchedModel } from './patched.js';

/**
 * Puts tensors into the places of the model's own; the manifest that is returned remembers both. A
 * tensor that the set replaced before only gets its new numbers.
 * @param from what to call the tensors' origin in an error
 * @throws OnnxLoraError `adapter-mismatch` for a tensor that has no counterpart of its type and shape
 * in the main graph; `unsupported` where another set replaced it: only one original can come back
 */
export function replaceTensors(
  patched: PatchedModel,
  set: ModelManifest,
  tensors: readonly NewTensor[],
  { edit, names, from }: { edit: MessageEdit; names: NameAuthority; from: string },
): ModelManifest {
  if (tensors.length === 0) return set;
  const replaced = new Map((set.replaced ?? []).map((one) => [one.tensor, one]));
  const given = new Set<string>();
  for (const tensor of tensors) {
    const { name } = tensor;
    if (given.has(name)) throw mismatch(patched, from, tensor, 'it twice');
    given.add(name);
    const place = counterpart(patched, tensor, from);
    checkFree(patched, set, name);
    if (replaced.has(name)) {
      edit
        .child(patched.model.graph.field)
        .replace(place.tensor.field, ...initializerRecord(tensor));
      continue;
    }
    const original = names.fresh(`lora/${set.set}/original/${name}`);
    setAside(patched, place, original, edit);
    addTensor(patched, place, tensor, edit);
    replaced.set(name, { tensor: name, original });
  }
  return { ...set, replaced: [...replaced.values()] };
}

/** The model's own tensor of the name, type and shape. */
function counterpart(patched: PatchedModel, tensor: NewTensor, from: string): TensorPlace {
  const { model, values, ownTensors } = patched;
  const place = storedTensor(values, model.graph, tensor.name);
  if (!place) {
    const producer = values.resolve(model.graph, tensor.name)?.producer;
    throw mismatch(
      patched,
      from,
      tensor,
      producer ? `what ${nodeLabel(producer)} computes` : 'none',
    );
  }
  if (ownTensors.has(tensor.name)) throw mismatch(patched, from, tensor, 'one of an adapter set');
  const { dims } = place.tensor;
  const dtype = dtypeOf(place.tensor, model);
  if (dtype === tensor.dtype && dims.join() === tensor.dims.join()) return place;
  throw mismatch(patched, from, tensor, `${dtype} [${dims.join(', ')}]`);
}

function mismatch(
  { model }: PatchedModel,
  from: string,
  { name, dtype, dims }: NewTensor,
  found: string,
): OnnxLoraError {
  return new OnnxLoraError(
    'adapter-mismatch',
    `${from} does not fit ${model.source.label}: expected a constant ${name} of ${dtype} [${dims.join(', ')}], found ${found}`,
    { hint: 'Adapters fit the model they were trained on.' },
  );
}

function checkFree({ model, sets }: PatchedModel, { set }: ModelManifest, name: string): void {
  const other = sets.find(
    (one) => one.set !== set && one.replaced?.some(({ tensor }) => tensor === name),
  );
  if (!other) return;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: the adapter set ${JSON.stringify(other.set)} replaced ${name} already`,
    {
      hint: `Fold that set first (onnx-lora merge --name ${other.set}), or leave this tensor as it is.`,
    },
  );
}

// Before IR 4 every initializer has to be a graph input as well.
const FREE_INITIALIZERS = 4;

function setAside(
  { model }: PatchedModel,
  place: TensorPlace,
  name: string,
  edit: MessageEdit,
): void {
  renameTensor(edit, model, place, name);
  if (place.node || model.irVersion >= FREE_INITIALIZERS) return;
  const input = inputRecord(name, dtypeOf(place.tensor, model), place.tensor.dims);
  edit.child(model.graph.field).append(...input);
}

function addTensor(
  { model }: PatchedModel,
  { node }: TensorPlace,
  tensor: NewTensor,
  edit: MessageEdit,
): void {
  // The input of the old one, if there is one, is that of the new one.
  if (node) addInitializer(edit, model, tensor);
  else edit.child(model.graph.field).append(...initializerRecord(tensor));
}

/** Gives the model its own tensors back. */
export function restoreTensors(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const { model } = patched;
  const graph = edit.child(model.graph.field);
  for (const replacement of replacementsOf(sets)) {
    const { tensor, original } = replacement;
    graph.remove(patched.initializer(tensor).field);
    const place = patched.original(replacement);
    renameTensor(edit, model, place, tensor);
    removeInput(patched, place.node ? tensor : original, edit);
  }
}

/** Leaves the new tensors in the model, and takes out what they replaced. */
export function dropOriginals(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
): void {
  const graph = edit.child(patched.model.graph.field);
  for (const replacement of replacementsOf(sets)) {
    const { node, tensor } = patched.original(replacement);
    graph.remove((node ?? tensor).field);
    removeInput(patched, replacement.original, edit);
  }
}

function replacementsOf(sets: readonly ModelManifest[]): Replacement[] {
  return sets.flatMap(({ replaced = [] }) => replaced);
}

function removeInput({ model }: PatchedModel, name: string, edit: MessageEdit): void {
  for (const input of model.graph.inputs) {
    if (input.name === name) edit.child(model.graph.field).remove(input.field);
  }
}
