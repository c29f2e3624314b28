/** What a slotted model says of its slots, in its `metadata_props`. */

import * as v from 'valibot';
import type { Model } from '../../onnx/model.js';
import { slotModes } from '../structure/choices.js';
import { encodeRecord, name, readManifest, site, size } from './manifest.js';

export const slotDtypes = ['float32', 'float64', 'float16'] as const;

const slot = v.object({
  name,
  in: size,
  out: size,
  /** Type of A and B. */
  dtype: v.picklist(slotDtypes),
  /** The graph inputs A [in, rank] and B [rank, out]. */
  a: name,
  b: name,
  sites: v.pipe(v.array(site), v.minLength(1)),
});

const slotManifest = v.object({
  version: v.literal(1),
  createdBy: v.string(),
  mode: v.picklist(slotModes),
  slots: v.pipe(v.array(slot), v.minLength(1)),
  /** Every initializer that was added for the slots. */
  initializers: v.array(name),
});

/** A place in the model that takes an adapter when it runs. */
export type Slot = v.InferOutput<typeof slot>;
export type SlotManifest = v.InferOutput<typeof slotManifest>;

export const slotsKey = 'onnx_lora.slots';

/**
 * The slots of a model; undefined for a model without.
 * @throws OnnxLoraError `invalid-manifest`
 */
export function readSlots(model: Model): SlotManifest | undefined {
  const entry = model.metadata.find(({ key }) => key === slotsKey);
  return entry && readManifest(slotManifest, model, entry);
}

/** The metadata value. The schema gives the keys their order. */
export function encodeSlots(manifest: SlotManifest): string {
  return encodeRecord(slotManifest, manifest, 'the slots');
}
