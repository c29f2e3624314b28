/** The manifest of a model's slots, in its `metadata_props`. */

import * as v from 'valibot';
import type { Model } from '../../onnx/model.js';
import { slotModes } from '../structure/choices.js';
import { encodeRecord, name, readManifest, site, size } from './manifest.js';

export const slotDtypes = ['float32', 'float64', 'float16'] as const;

const slotEntries = v.object({
  /** Of the slot: the path of the module, where it is known. */
  name,
  /** Input features of the layer. */
  in: size,
  /** Output features of the layer. */
  out: size,
  /** Type of A and B. */
  dtype: v.picklist(slotDtypes),
  /** The graph input A, [in, rank]. */
  a: name,
  /** The graph input B, [rank, out]. */
  b: name,
  /** The nodes that read the weight; at least one. */
  sites: v.pipe(v.array(site), v.minLength(1)),
});

/** A place in the model that takes an adapter when it runs. */
export interface Slot extends v.InferOutput<typeof slotEntries> {}
const slot: v.GenericSchema<unknown, Slot> = slotEntries;

const slotManifest = v.object({
  /** Of the format of this record. */
  version: v.literal(1),
  /** The program that wrote it, with its version. */
  createdBy: v.string(),
  /** The way the model was changed: inputs that may be left out, or that have to be fed. */
  mode: v.picklist(slotModes),
  /** At least one. */
  slots: v.pipe(v.array(slot), v.minLength(1)),
  /** Every initializer that was added for the slots. */
  initializers: v.array(name),
});

/** The slots of a model, as its `metadata_props` keep them. */
export interface SlotManifest extends v.InferOutput<typeof slotManifest> {}

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
