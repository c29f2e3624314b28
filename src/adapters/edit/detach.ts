/** Takes out of a model what attach.ts put into it. */
import type { MessageEdit } from '../../onnx/edit.js';
import type { Node } from '../../onnx/model.js';
import { graphEdit } from '../../onnx/rewrite.js';
import { encodeString } from '../../onnx/wire.js';
import type { AttachedNodes, PatchedModel } from '../model/patched.js';

/** Removes the nodes of sites, and gives outputs their names back. */
export function detachSites(
  patched: PatchedModel,
  sites: readonly AttachedNodes[],
  edit: MessageEdit,
): void {
  const removed = new Set<Node>(sites.flatMap(({ nodes }) => nodes));
  // If adapters are stacked, the name to give back is the one of the last removed Add.
  const successor = new Map(sites.map(({ site, add }) => [site.base, add.outputs[0]!]));
  const finalName = (base: string): string => {
    let name = base;
    for (let next = successor.get(name); next !== undefined; next = successor.get(name))
      name = next;
    return name;
  };
  for (const attached of sites) {
    const { site } = attached;
    const producer = patched.producer(attached);
    if (removed.has(producer)) continue;
    const field = producer.outputFields[producer.outputs.indexOf(site.base)]!;
    const name = encodeString(finalName(site.base));
    graphEdit(edit, producer.graph).child(producer.field).setPayload(field, name);
  }
  for (const node of removed) graphEdit(edit, node.graph).remove(node.field);
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
