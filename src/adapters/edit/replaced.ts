/**
 * Constants of the model that an adapter set gives other numbers: biases that were trained, a
 * classifier that came with the adapters, weights that an initialisation took something out of. The
 * new tensor takes the name, so that nothing that reads it changes. The model's own is set aside: its
 * record stays in the file under another name, and taking the set out gives it its name back. Where
 * modules share a tensor and one of them was trained, as heads are with tied embeddings, its nodes read a
 * new tensor beside the model's own.
 */

import { OnnxLoraError } from '../../errors.js';
import { storedTensor } from '../../graph/constants.js';
import type { NameAuthority } from '../../graph/names.js';
import type { Use } from '../../graph/uses.js';
import type { NewDataFile } from '../../onnx/data-file.js';
import { byteLength, isConvertible } from '../../onnx/dtype.js';
import type { Computed, MessageEdit } from '../../onnx/edit.js';
import { initializerRecord, inputRecord, type NewTensor } from '../../onnx/encode.js';
import type { TensorPlace } from '../../onnx/external.js';
import { elementCount, type Node, nodeLabel, type Tensor } from '../../onnx/model.js';
import { addInitializer, graphEdit, renameTensor, setTensorData } from '../../onnx/rewrite.js';
import { dtypeOf, floatTypeOf, type TensorReader } from '../../onnx/tensor.js';
import { encodeString } from '../../onnx/wire.js';
import type { ModelManifest, Replacement, Share } from '../model/manifest.js';
import type { PatchedModel } from '../model/patched.js';
import { finiteBytes } from '../structure/finite.js';

/** A tensor that modules share, one of which gets numbers of its own. */
export interface SharedTensor extends Share {
  /** Name of the tensor that they share. */
  readonly original: string;
}

/** A tensor with new numbers: for all that reads the one of its name, or for one module's share of another. */
export interface ReplacingTensor extends NewTensor {
  /** Set where only one of the modules that share the tensor was trained. */
  readonly share?: SharedTensor | undefined;
}

/** Tools to put tensors in with. */
export interface ReplaceContext {
  readonly edit: MessageEdit;
  readonly names: NameAuthority;
  /** The name of the tensors' origin in an error. */
  readonly from: string;
  /** Takes the tensors that replace external ones; without it all stand in the model file. */
  readonly dataFile?: NewDataFile | undefined;
}

/**
 * Puts tensors into the places of the model's own; the manifest that is returned remembers both. A
 * tensor that the set replaced before only gets its new numbers.
 * @throws OnnxLoraError `adapter-mismatch` for a tensor that has no counterpart of its type and shape
 * in the main graph; `unsupported` where another set replaced it: only one original can come back
 */
export function replaceTensors(
  patched: PatchedModel,
  set: ModelManifest,
  tensors: readonly ReplacingTensor[],
  context: ReplaceContext,
): ModelManifest {
  if (tensors.length === 0) return set;
  const { edit, names, from } = context;
  const replaced = new Map((set.replaced ?? []).map((one) => [one.tensor, one]));
  const given = new Set<string>();
  for (const tensor of tensors) {
    const { name } = tensor;
    if (given.has(name)) throw mismatch(patched, from, tensor, 'it twice');
    given.add(name);
    if (tensor.share && !replaced.has(name)) {
      const one = splitOff(patched, set, tensor, tensor.share, context);
      replaced.set(one.tensor, one);
      continue;
    }
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
    addTensor(patched, place, tensor, context);
    replaced.set(name, { tensor: name, original });
  }
  return { ...set, replaced: [...replaced.values()] };
}

/** Gives the nodes of one module a tensor of their own, where others share the model's. */
function splitOff(
  patched: PatchedModel,
  set: ModelManifest,
  tensor: NewTensor,
  { original, ...share }: Share & { readonly original: string },
  context: ReplaceContext,
): Replacement {
  const { edit, names, from } = context;
  const place = counterpart(patched, { ...tensor, name: original }, from);
  checkFree(patched, set, original);
  checkModelsOwn(patched, place, from);
  const own = { ...tensor, name: names.fresh(tensor.name) };
  const readers = readersOf(patched, place, share);
  if (readers.length !== share.readers.length) {
    const labels = share.readers.map(({ node }) => node).join(', ');
    throw mismatch(patched, from, { ...tensor, name: original }, `one that ${labels} do not read`);
  }
  for (const { node, index } of readers) pointTo(edit, node!, index, own.name);
  addTensor(patched, place, own, context, true);
  return { tensor: own.name, original, share };
}

/** Adapters that read their weight would go on reading the original. */
function checkModelsOwn(patched: PatchedModel, place: TensorPlace, from: string): void {
  const { model, ownNodes } = patched;
  const reader = usesOf(patched, place).find(({ node }) => node && ownNodes.has(node.name))?.node;
  if (!reader) return;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: ${from} gives one of the readers of ${place.tensor.name} other numbers, and an adapter in the model reads it too, in ${nodeLabel(reader)}`,
    { node: nodeLabel(reader), hint: 'Fold the adapters that are in the model first.' },
  );
}

function usesOf({ values }: PatchedModel, { tensor, graph, node }: TensorPlace): readonly Use[] {
  return values.resolve(graph, node ? node.outputs[0]! : tensor.name)?.uses ?? [];
}

/** The uses of a tensor that belong to a share. */
function readersOf(patched: PatchedModel, place: TensorPlace, { readers }: Share): Use[] {
  return usesOf(patched, place).filter(({ node, index }) => {
    const isListed = (one: Share['readers'][number]) =>
      one.input === index && one.node === patched.label(node!);
    return node !== undefined && readers.some(isListed);
  });
}

function pointTo(edit: MessageEdit, node: Node, index: number, name: string): void {
  const field = node.inputFields[index]!;
  graphEdit(edit, node.graph).child(node.field).setPayload(field, encodeString(name));
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

/**
 * Checks that no other set replaced a tensor.
 * @throws OnnxLoraError `unsupported`
 */
export function checkFree(
  { model, sets }: PatchedModel,
  { set }: ModelManifest,
  name: string,
): void {
  const other = sets.find(
    (one) =>
      one.set !== set &&
      one.replaced?.some(({ tensor, original }) => tensor === name || original === name),
  );
  if (!other) return;
  throw new OnnxLoraError(
    'unsupported',
    `${model.source.label}: the adapter set ${JSON.stringify(other.set)} replaced ${name} already`,
    {
      hint: `Fold that set first (\`merge(model, { name: ${JSON.stringify(other.set)} })\`), or leave this tensor as it is.`,
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
  { node, tensor: { data } }: TensorPlace,
  tensor: NewTensor,
  { edit, dataFile }: ReplaceContext,
  isAnother = node !== undefined,
): void {
  const isFree = model.irVersion >= FREE_INITIALIZERS;
  if (dataFile && data.kind === 'external' && isFree) dataFile.add(tensor);
  // The input of the old one, if there is one, is that of the new one.
  else if (isAnother) addInitializer(edit, model, tensor);
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
    const { tensor } = replacement;
    graph.remove(patched.initializer(tensor).field);
    if (replacement.share) {
      giveBack(patched, sets, replacement, edit);
      continue;
    }
    const place = patched.original(replacement);
    renameTensor(edit, model, place, tensor);
    removeInput(patched, addedInput(replacement, place), edit);
  }
}

/** Lets everything that reads a module's share read the original again. */
function giveBack(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  { tensor, original }: Replacement,
  edit: MessageEdit,
): void {
  const leaving = new Set(
    sets.flatMap(({ adapters }) =>
      adapters.flatMap(({ sites }) => sites.flatMap(({ nodes }) => nodes)),
    ),
  );
  for (const { node, index } of patched.values.resolve(patched.model.graph, tensor)?.uses ?? []) {
    if (node && !leaving.has(node.name)) pointTo(edit, node, index, original);
  }
  removeInput(patched, tensor, edit);
}

/** Parts of a fold that tensors need. */
interface Fold {
  /** Whether no node reads the tensor any more. */
  isRemoved(tensor: Tensor): boolean;
  /** Whether something was folded into it where it is. */
  isFolded(tensor: Tensor): boolean;
  put(tensor: TensorPlace, data: Computed): void;
}

/** The places of the tensors that sets replaced, by those that replace them. */
export function originalPlaces(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
): ReadonlyMap<Tensor, TensorPlace> {
  return new Map(
    replacementsOf(sets).flatMap((replacement) => {
      if (replacement.share) return [];
      return [[patched.initializer(replacement.tensor), patched.original(replacement)] as const];
    }),
  );
}

/** The tensors that come back when sets that stay are taken out. */
export function originalsOf(
  patched: PatchedModel,
  leaving: readonly ModelManifest[],
): ReadonlySet<Tensor> {
  const staying = patched.sets.filter((set) => !leaving.includes(set));
  return new Set(replacementsOf(staying).map((one) => patched.original(one).tensor));
}

/**
 * Moves new tensors into the places of those that they replaced, for good.
 * @returns the names of those that nothing was folded into
 */
export function settleTensors(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
  reader: TensorReader,
  fold: Fold,
): string[] {
  const { model } = patched;
  const graph = edit.child(model.graph.field);
  const settled: string[] = [];
  for (const replacement of replacementsOf(sets)) {
    const tensor = patched.initializer(replacement.tensor);
    const place = patched.original(replacement);
    if (replacement.share) {
      if (!fold.isRemoved(tensor) && !fold.isFolded(tensor)) settled.push(tensor.name);
      continue;
    }
    if (fold.isRemoved(tensor)) {
      graph.remove((place.node ?? place.tensor).field);
      continue;
    }
    if (!fold.isFolded(tensor)) {
      fold.put({ tensor, graph: model.graph }, numbersOf(tensor, reader));
      settled.push(replacement.tensor);
    }
    graph.remove(tensor.field);
    renameTensor(edit, model, place, replacement.tensor);
    removeInput(patched, addedInput(replacement, place), edit);
  }
  removeUnshared(patched, sets, edit, fold);
  return settled;
}

/** Originals whose every reader got a tensor of its own. */
function removeUnshared(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
  fold: Fold,
): void {
  const shared = replacementsOf(sets).filter(({ share }) => share);
  const places = new Map(shared.map((one) => [one.original, patched.original(one)]));
  for (const [name, { tensor, node }] of places) {
    const value = patched.values.resolve(patched.model.graph, name);
    if (!value || value.uses.length > 0 || value.isInput || fold.isRemoved(tensor)) continue;
    edit.child(patched.model.graph.field).remove((node ?? tensor).field);
  }
}

function numbersOf(tensor: Tensor, reader: TensorReader): Computed {
  const span = reader.span(tensor);
  const bytes = () => span?.source.read(span.start, span.end) ?? reader.bytes(tensor);
  return { length: span ? span.end - span.start : bytes().length, chunks: () => [bytes()] };
}

/** The input that came with a replacement: before IR 4, that of the initializer that came with it. */
function addedInput({ tensor, original }: Replacement, { node }: TensorPlace): string {
  return node ? tensor : original;
}

/**
 * Brings new tensors to `base + factor · (new - base)`, added up in float64 and rounded once.
 * @throws OnnxLoraError `unsupported` for tensors that hold no real numbers
 */
export function interpolateTensors(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
  reader: TensorReader,
  factor: number,
): void {
  const { model } = patched;
  for (const replacement of replacementsOf(sets)) {
    const tensor = patched.initializer(replacement.tensor);
    const dtype = dtypeOf(tensor, model);
    if (!isConvertible(dtype)) throw notScalable(patched, replacement, dtype);
    const original = patched.original(replacement).tensor;
    const chunks = function* () {
      const base = reader.float64(original);
      const values = reader
        .float64(tensor)
        .map((value, i) => base[i]! + factor * (value - base[i]!));
      yield finiteBytes(dtype, values, `the scaled tensor ${tensor.name}`);
    };
    const { name, dims } = tensor;
    const data = { length: byteLength(dtype, elementCount(dims)), chunks };
    const record = initializerRecord({ name, dtype, dims, data });
    edit.child(model.graph.field).replace(tensor.field, ...record);
  }
}

/** Brings biases that the model did not have to so many times their numbers: the base has zeros there. */
export function scaleBiases(
  patched: PatchedModel,
  sets: readonly ModelManifest[],
  edit: MessageEdit,
  reader: TensorReader,
  factor: number,
): void {
  for (const { tensor: name } of sets.flatMap(({ biases = [] }) => biases)) {
    const tensor = patched.initializer(name);
    const { model } = patched;
    const dtype = floatTypeOf(tensor, model);
    const scaled = reader.float64(tensor).map((value) => value * factor);
    const data = finiteBytes(dtype, scaled, `the scaled bias ${name}`);
    setTensorData(
      edit,
      { tensor, graph: model.graph },
      { length: data.length, chunks: () => [data] },
    );
  }
}

function notScalable({ model }: PatchedModel, { tensor }: Replacement, dtype: string) {
  return new OnnxLoraError(
    'unsupported',
    `${model.source.label}: the adapter set replaces ${tensor}, which is ${dtype} and cannot be scaled`,
    { hint: 'Merge without `scale`.' },
  );
}

function replacementsOf(sets: readonly ModelManifest[]): Replacement[] {
  return sets.flatMap(({ replaced = [] }) => replaced);
}

function removeInput({ model }: PatchedModel, name: string, edit: MessageEdit): void {
  for (const input of model.graph.inputs) {
    if (input.name === name) edit.child(model.graph.field).remove(input.field);
  }
}
