import type { MessageEdit } from '../../onnx/edit.js';
import { detachSites, removeAdded } from '../detach.js';
import type { PatchedModel } from '../patched.js';
import { slotsKey } from './manifest.js';

/** Removes the nodes, inputs, initializers and the manifest of the model's slots, if it has any. */
export function removeSlots(patched: PatchedModel, edit: MessageEdit): void {
  const { slots, slotSites } = patched;
  if (!slots) return;
  detachSites(patched, slotSites, edit);
  const inputs = slots.slots.flatMap(({ a, b }) => [a, b]);
  removeAdded(patched, new Set([...slots.initializers, ...inputs]), new Set([slotsKey]), edit);
}
