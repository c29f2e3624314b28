/** Evidence for advice: a tuned model, the gradient on data, or the weights alone. */
import { setImmediate } from 'node:timers/promises';
import { isStoredFloat, weightValues } from '../../adapters/fold/weight-values.js';
import type { Layer } from '../../adapters/model/layers.js';
import { OpenedModel } from '../../adapters/model/opened.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import type { Selection } from '../../adapters/targets/select.js';
import { OnnxLoraError } from '../../errors.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { WorkOptions } from '../../onnx/write.js';
import { pickOptions } from '../../options/resolve.js';
import { type GradientOptions, gradientOptions } from '../../training/gradient-options.js';
import { type GuardListener, weightGradients } from '../../training/weight-gradients.js';
import { findChanges } from '../fit/changes.js';
import { weightDelta } from '../fit/weight-delta.js';
import { checkWithoutAdapters } from '../fit/without-adapters.js';
import type { Evidence } from './scores.js';

/** Evidence on one layer, or why there is none. */
export type LayerEvidence = { readonly layer: Layer } & (
  | { readonly evidence: Evidence }
  | { readonly refusal: string }
);

/** The gradients of the layers on data: where training would begin to move them. */
export async function* gradientEvidence(
  patched: PatchedModel,
  reader: TensorReader,
  layers: readonly Layer[],
  options: GradientOptions & GuardListener,
): AsyncGenerator<LayerEvidence> {
  const own = { ...pickOptions(gradientOptions, options), onGuard: options.onGuard };
  for await (const result of weightGradients(patched, reader, layers, own)) {
    const { layer } = result;
    if ('refusal' in result) yield result;
    else yield { layer, evidence: { values: result.values, halves: result.halves } };
  }
}

/** The weights themselves: how their numbers lie, which need not be how training moves them. */
export async function* weightEvidence(
  reader: TensorReader,
  layers: readonly Layer[],
  { signal, onProgress }: WorkOptions,
): AsyncGenerator<LayerEvidence> {
  for (const [done, layer] of layers.entries()) {
    onProgress?.({ phase: 'measure', done, total: layers.length, unit: 'weights' });
    await setImmediate();
    if (signal?.aborted) throw new OnnxLoraError('aborted', 'interrupted');
    const { weight } = layer.linear[0]!;
    if (!isStoredFloat(weight)) {
      yield { layer, refusal: 'its weight is quantized, and nothing else says how it may change' };
      continue;
    }
    const values = await weightValues(reader, weight);
    if (!values.every(Number.isFinite)) {
      throw new OnnxLoraError(
        'invalid-model',
        `the weight of ${layer.module} holds numbers that are not finite`,
        { node: layer.module, hint: 'The training run diverged, or the file is damaged.' },
      );
    }
    yield { layer, evidence: { values } };
  }
}

/** The changes in a tuned model's weights: exactly what adapters have to represent. */
export async function* tunedEvidence(
  base: OpenedModel,
  tunedPath: string,
  layers: readonly Layer[],
  selection: Selection,
  work: WorkOptions,
): AsyncGenerator<LayerEvidence> {
  const tuned = OpenedModel.open(tunedPath);
  try {
    checkWithoutAdapters(tuned);
    const changes = await findChanges(base, tuned, selection, work);
    const changed = new Map(changes.layers.map((one) => [one.layer.nodes[0], one]));
    for (const layer of layers) {
      const change = changed.get(layer.nodes[0]);
      if (!change) yield { layer, refusal: 'its weight is the same in the tuned model' };
      else yield { layer, evidence: await weightDelta(base, tuned, change) };
    }
  } finally {
    tuned.close();
  }
}
