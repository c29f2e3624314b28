/** Takes out of a model what attach.ts put into it. */
import type { MessageEdit } from '../../onnx/edit.js';
import type { Node } from '../../onnx/model.js';
import { graphEdit } from '../../onnx/rewrite.js';
import { encodeString } from '../../onnx/wire.js';
import type { AttachedNodes, PatchedModel } from '../model/patched.js';

/** Removes the nodes of sites, and gives outputs their names back, and nodes their weights. */
export function detachSites(
  patched: PatchedModel,
  sites: readonly AttachedNodes[],
  edit: MessageEdit,
): void {
  const removed = new Set<Node>(sites.flatMap(({ nodes }) => nodes));
  const onWeights = sites.filter(({ site }) => site.input !== undefined);
  leaveOutputs(
    patched,
    sites.filter((one) => !onWeights.includes(one)),
    removed,
    edit,
  );
  leaveWeights(patched, onWeights, removed, edit);
  for (const node of removed) graphEdit(edit, node.graph).remove(node.field);
}

function leaveOutputs(
  patched: PatchedModel,
  sites: readonly AttachedNodes[],
  removed: ReadonlySet<Node>,
  edit: MessageEdit,
): void {
  // If adapters are stacked, the name to give back is the one of the last removed Add.
  const successor = new Map(sites.map(({ site, add }) => [site.base, add.outputs[0]!]));
  for (const attached of sites) {
    const { site } = attached;
    const producer = patched.producer(attached);
    if (removed.has(producer)) continue;
    const field = producer.outputFields[producer.outputs.indexOf(site.base)]!;
    const name = encodeString(lastOf(successor, site.base));
    graphEdit(edit, producer.graph).child(producer.field).setPayload(field, name);
  }
}

/** The node above the last removed Add reads what the first one read. */
function leaveWeights(
  patched: PatchedModel,
  sites: readonly AttachedNodes[],
  removed: ReadonlySet<Node>,
  edit: MessageEdit,
): void {
  const below = new Map(sites.map(({ add }) => [add.outputs[0]!, add.inputs[0]!]));
  for (const { add } of sites) {
    const { node: reader, index } = patched.readerOf(add);
    const node = reader!;
    if (removed.has(node)) continue;
    const name = encodeString(lastOf(below, add.outputs[0]!));
    graphEdit(edit, node.graph).child(node.field).setPayload(node.inputFields[index]!, name);
  }
}

function lastOf(next: ReadonlyMap<string, string>, start: string): string {
  let name = start;
  for (let after = next.get(name); after !== undefined; after = next.get(name)) name = after;
  return name;
}

/** Removes initializers and graph inputs of these names, and metadata entries of these keys. */
export function removeAdded(
  { model }: PatchedModel,
  names: ReadonlySet<string>,
  keys: ReadonlySet<string>,
  edit: MessageEdit,
): void {
  const graph = edit.child(model.graph.field);
  for (const tensor of model.graph.initializers.values()) {
    if (names.has(tensor.name)) graph.remove(tensor.field);
  }
  for (const input of model.graph.inputs) if (names.has(input.name)) graph.remove(input.field);
  for (const entry of model.metadata) if (keys.has(entry.key)) edit.remove(entry.field);
}
