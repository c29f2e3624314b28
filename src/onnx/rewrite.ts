/** Edits of a model by its elements instead of its fields. */
import type { Computed, MessageEdit } from './edit.js';
import {
  initializerRecord,
  inputRecord,
  metadataRecord,
  type NewTensor,
  record,
  stringRecord,
} from './encode.js';
import type { TensorPlace } from './external.js';
import { EntryField, TensorField } from './fields.js';
import type { Entry, Graph, Model } from './model.js';
import { encodeString, type Field, fieldsOf, readString } from './wire.js';

/** The edit of a graph inside the edit of the model: the main graph, or a body within a node. */
export function graphEdit(root: MessageEdit, graph: Graph): MessageEdit {
  if (!graph.parent) return root.child(graph.field);
  const { node, attribute } = graph.parent;
  return graphEdit(root, node.graph).child(node.field).child(attribute).child(graph.field);
}

/** The edit of a tensor inside the edit of the model. */
export function tensorEdit(root: MessageEdit, place: TensorPlace): MessageEdit {
  const { tensor, graph, node, attribute } = place;
  const parent = graphEdit(root, graph);
  if (!node || !attribute) return parent.child(tensor.field);
  return parent.child(node.field).child(attribute.field).child(tensor.field);
}

/** Whether an edit of the model takes a tensor out of it. */
export function isTensorDropped(root: MessageEdit, place: TensorPlace): boolean {
  const { tensor, graph, node, attribute } = place;
  const inner = node && attribute ? [node.field, attribute.field] : [];
  return root.drops([...fieldsTo(graph), ...inner, tensor.field]);
}

function fieldsTo({ field, parent }: Graph): Field[] {
  if (!parent) return [field];
  const { node, attribute } = parent;
  return [...fieldsTo(node.graph), node.field, attribute, field];
}

/** Points a tensor to another external data file; all other bytes of its record stay. */
export function setLocation(
  root: MessageEdit,
  { source }: Model,
  place: TensorPlace,
  location: string,
): void {
  const { data } = place.tensor;
  if (data.kind !== 'external') return;
  for (const entry of data.entries) {
    const parts = [...fieldsOf(source, { start: entry.value, end: entry.end })];
    const key = parts.findLast(({ number }) => number === EntryField.key);
    const value = parts.findLast(({ number }) => number === EntryField.value);
    if (!key || !value || readString(source, key) !== 'location') continue;
    tensorEdit(root, place).child(entry).setPayload(value, encodeString(location));
  }
}

/** The model's metadata entry of a key. */
export function findMetadata({ metadata }: Model, key: string): Entry | undefined {
  return metadata.find((entry) => entry.key === key);
}

/** Gives the model a metadata entry, in the place of the one that it has of this key. */
export function setMetadata(root: MessageEdit, model: Model, key: string, value: string): void {
  const entry = findMetadata(model, key);
  const pieces = metadataRecord(key, value);
  if (entry) root.replace(entry.field, ...pieces);
  else root.append(...pieces);
}

/** Adds an initializer to the main graph. */
export function addInitializer(root: MessageEdit, model: Model, tensor: NewTensor): void {
  const graph = root.child(model.graph.field);
  graph.append(...initializerRecord(tensor));
  // Before IR 4 an initializer has to be a graph input as well.
  if (model.irVersion < 4) graph.append(...inputRecord(tensor.name, tensor.dtype, tensor.dims));
}

/** Gives a stored tensor another name: that of its record, or of its Constant's output. */
export function renameTensor(
  root: MessageEdit,
  { source }: Model,
  { tensor, graph, node }: TensorPlace,
  name: string,
): void {
  const edit = graphEdit(root, graph);
  if (node) {
    edit.child(node.field).setPayload(node.outputFields[0]!, encodeString(name));
    return;
  }
  const range = { start: tensor.field.value, end: tensor.field.end };
  // Of a field that is there twice, readers take the last.
  const field = [...fieldsOf(source, range)].findLast(({ number }) => number === TensorField.name)!;
  edit.child(tensor.field).setPayload(field, encodeString(name));
}

/** Sets one key of a tensor's external data entries; an undefined value removes it. */
export function setExternalEntry(
  edit: MessageEdit,
  entries: ReadonlyMap<string, Field>,
  key: string,
  value: string | undefined,
): void {
  const old = entries.get(key);
  const entry =
    value === undefined
      ? []
      : record(
          TensorField.externalData,
          stringRecord(EntryField.key, key),
          stringRecord(EntryField.value, value),
        );
  if (old) edit.replace(old, ...entry);
  else if (value !== undefined) edit.append(...entry);
}

/** Gives a tensor that is stored in the model file other numbers of its type. */
export function setTensorData(root: MessageEdit, place: TensorPlace, data: Computed): void {
  const edit = tensorEdit(root, place);
  const stored = place.tensor.data;
  if (stored.kind === 'raw') edit.setPayload(stored.field, data);
  if (stored.kind !== 'typed') return;
  const [first, ...rest] = stored.fields;
  const packed: number[] = [TensorField.floatData, TensorField.doubleData];
  // Other typed fields hold each number as a varint, whose length is not known before.
  const number = packed.includes(first!.number) ? first!.number : TensorField.rawData;
  edit.replace(first!, ...record(number, data));
  for (const field of rest) edit.remove(field);
}
