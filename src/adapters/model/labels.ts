/** The names of the classes that a model tells apart, in the order of its outputs. */
import * as v from 'valibot';
import type { MessageEdit } from '../../onnx/edit.js';
import type { Model } from '../../onnx/model.js';
import { findMetadata, setMetadata } from '../../onnx/rewrite.js';
import { type ModelManifest, parseManifest } from './manifest.js';
import type { PatchedModel } from './patched.js';

/** The metadata key of a model whose adapters are merged; before, their set has the names. */
const LABELS_KEY = 'onnx_lora.labels';

/**
 * The names that the model's adapters were trained with, in it or merged into it.
 * @throws OnnxLoraError `invalid-manifest`
 */
export function labelsOf({ model, sets }: PatchedModel): readonly string[] | undefined {
  const ofSet = sets.findLast(({ labels }) => labels)?.labels;
  if (ofSet) return ofSet;
  const entry = findMetadata(model, LABELS_KEY);
  const where = `${model.source.label}: ${LABELS_KEY}`;
  return entry && parseManifest(v.array(v.string()), entry.value(), where);
}

/** Leaves the names of sets that are merged in the model itself. */
export function keepLabels(edit: MessageEdit, model: Model, sets: readonly ModelManifest[]): void {
  const labels = sets.findLast((set) => set.labels)?.labels;
  if (labels) setMetadata(edit, model, LABELS_KEY, JSON.stringify(labels));
}
