/** `patch` with `structure: 'auto'`: advice on the layers that get adapters, taken at once. */

import type { AdapterOptions } from '../../adapters/edit/new-adapters.js';
import type { Layer } from '../../adapters/model/layers.js';
import type { PatchedModel } from '../../adapters/model/patched.js';
import { numberPatterns } from '../../adapters/targets/patterns.js';
import { patternValues } from '../../adapters/targets/select.js';
import { OnnxLoraError } from '../../errors.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { WriteOptions } from '../../onnx/write.js';
import type { StartOptions } from '../init/start.js';
import { adviseLayers } from './advise-layers.js';
import { gradientEvidence, weightEvidence } from './evidence.js';

/**
 * The structures that the data want, or where there are none, that the weights suggest. Patterns that
 * are given go before those that are found.
 * @throws OnnxLoraError `invalid-argument` for data without a loss, and those of the gradient
 */
export async function autoStructures(
  patched: PatchedModel,
  reader: TensorReader,
  layers: readonly Layer[],
  options: Omit<AdapterOptions, 'structure'> & StartOptions & WriteOptions,
): Promise<Pick<AdapterOptions, 'structure' | 'blocks' | 'structurePattern'>> {
  const { rank = 16, data, loss, blocks, seed, signal, onProgress, onNote } = options;
  if (blocks !== undefined) {
    throw invalid('blocks has no effect with structure auto', 'Leave out one of them.');
  }
  if (data !== undefined && loss === undefined) {
    throw invalid('data needs a loss', 'Name it with `loss`, for example cross-entropy.');
  }
  if (data === undefined && loss !== undefined) {
    throw invalid('loss has no effect without data', 'Give samples with `data`.');
  }
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

function invalid(message: string, hint: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, { hint });
}
