/** `patch` with `structure: 'auto'`: advice on the layers that get adapters, taken at once. */

import type { AdapterOptions } from '../../adapters/edit/new-adapters.js';
import type { Layer } from '../../adapters/model/layers.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import { numberPatterns } from '../../adapters/targets/patterns.js';
import { patternValues } from '../../adapters/targets/select.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { InitOptions } from '../init/initialize.js';
import { adviseLayers } from './advise-layers.js';
import { gradientEvidence, weightEvidence } from './evidence.js';

/** Ranks and structures of the layers. */
export interface AutoOptions {
  readonly rank: number;
  readonly rankPattern?: readonly string[] | undefined;
  readonly structurePattern?: readonly string[] | undefined;
}

/**
 * The structures that the data want, or where there are none, that the weights suggest. Patterns that
 * are given go before those that are found.
 * @throws OnnxLoraError those of the gradient
 */
export async function autoStructures(
  patched: PatchedModel,
  reader: TensorReader,
  layers: readonly Layer[],
  options: InitOptions & AutoOptions,
): Promise<Pick<AdapterOptions, 'structure' | 'blocks' | 'structurePattern'>> {
  const { rank, data, loss, seed, signal, onProgress, onNote } = options;
  const ranks = patternValues(layers, numberPatterns(options.rankPattern, 'rank'), 'rank');
  const evidence =
    data === undefined || loss === undefined
      ? weightEvidence(reader, layers, options)
      : gradientEvidence(patched, reader, layers, { ...options, data, loss });
  const { overall, patch } = await adviseLayers(layers, evidence, {
    ...{ rank, seed, signal, onProgress, selection: {} },
    rankOf: (layer) => ranks.get(layer) ?? rank,
  });
  const basis =
    data === undefined
      ? 'the weights alone, which say little about how training will change them'
      : `the gradient on ${data}`;
  const sure = overall.verdict === 'clear' ? '' : ', no clear winner';
  onNote?.(`structure auto: ${overall.structure}${sure}; from ${basis}`);
  return {
    structure: patch.structure,
    blocks: patch.blocks,
    structurePattern: [...(options.structurePattern ?? []), ...(patch.structurePattern ?? [])],
  };
}
