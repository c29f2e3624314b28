/** The outputs of a model that heads have made. */
import * as v from 'valibot';
import type { MessageEdit } from '../../onnx/edit.js';
import type { Model } from '../../onnx/model.js';
import { findMetadata, setMetadata } from '../../onnx/rewrite.js';
import { type ModelManifest, parseManifest } from './manifest.js';
import type { PatchedModel } from './patched.js';

/** The metadata key of a model that heads are merged into; before, their sets name the outputs. */
const HEAD_OUTPUTS_KEY = 'onnx_lora.head_outputs';

/**
 * The outputs of heads in the model's adapter sets, and of those merged into it.
 * @throws OnnxLoraError `invalid-manifest`
 */
export function headOutputsOf({ model, heads }: PatchedModel): readonly string[] {
  return [...mergedInto(model), ...heads.map(({ output }) => output)];
}

/** Leaves the outputs of heads that are merged in the model itself. */
export function keepHeadOutputs(
  edit: MessageEdit,
  model: Model,
  sets: readonly ModelManifest[],
): void {
  const outputs = sets.flatMap(({ head }) => (head ? [head.output] : []));
  if (outputs.length === 0) return;
  const all = JSON.stringify([...mergedInto(model), ...outputs]);
  setMetadata(edit, model, HEAD_OUTPUTS_KEY, all);
}

function mergedInto(model: Model): string[] {
  const entry = findMetadata(model, HEAD_OUTPUTS_KEY);
  if (!entry) return [];
  const where = `${model.source.label}: ${HEAD_OUTPUTS_KEY}`;
  const names = parseManifest(v.array(v.string()), entry.value(), where);
  // Other programs may have taken an output away since.
  return names.filter((name) => model.graph.outputs.some((output) => output.name === name));
}
