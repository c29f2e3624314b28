import { MessageEdit } from '../../onnx/edit.js';
import { editedModel } from '../../onnx/edited-model.js';
import type { Model } from '../../onnx/model.js';
import { detachSites, removeAdded } from '../edit/detach.js';
import { PatchedModel } from '../model/patched.js';
import { slotsKey } from '../model/slot-manifest.js';

/** Removes the nodes, inputs, initializers and the manifest of the model's slots, if it has any. */
export function removeSlots(patched: PatchedModel, edit: MessageEdit): void {
  const { slots, slotSites } = patched;
  if (!slots) return;
  detachSites(patched, slotSites, edit);
  const inputs = slots.slots.flatMap(({ a, b }) => [a, b]);
  removeAdded(patched, new Set([...slots.initializers, ...inputs]), new Set([slotsKey]), edit);
}

/** The base of a slotted model; any other model is given back as it is. */
export async function withoutSlots(model: Model): Promise<Model> {
  const patched = new PatchedModel(model);
  if (!patched.slots) return model;
  const edit = new MessageEdit(model.source, model.range);
  removeSlots(patched, edit);
  return await editedModel(model, edit);
}
