import { MessageEdit } from '../../onnx/edit.js';
import { detachSites, removeAdded } from '../edit/detach.js';
import type { OpenedModel } from '../model/opened.js';
import type { PatchedModel } from '../model/patched.js';
import { slotsKey } from '../model/slot-manifest.js';

/** Removes the nodes, inputs, initializers and the manifest of the model's slots, if it has any. */
export function removeSlots(patched: PatchedModel, edit: MessageEdit): void {
  const { slots, slotSites } = patched;
  if (!slots) return;
  detachSites(patched, slotSites, edit);
  const inputs = slots.slots.flatMap(({ a, b }) => [a, b]);
  removeAdded(patched, new Set([...slots.initializers, ...inputs]), new Set([slotsKey]), edit);
}

/** The base of a slotted model, closed with it; any other model is given back as it is. */
export async function withoutSlots(opened: OpenedModel): Promise<OpenedModel> {
  const { model, patched } = opened;
  if (!patched.slots) return opened;
  const edit = new MessageEdit(model.source, model.range);
  removeSlots(patched, edit);
  return await opened.edited(edit);
}
