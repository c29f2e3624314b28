/** New adapters for chosen layers: structure, rank, scale and initial values. */
import { OnnxLoraError } from '../../errors.js';
import { resolveOptions } from '../../options/resolve.js';
import { generatorFor } from '../../random.js';
import type { FactorName, NewAdapter } from '../factors/factors.js';
import { initialA } from '../factors/init.js';
import { kindEntry, kinds } from '../kinds/index.js';
import { factorTensors } from '../kinds/tensors.js';
import type { Layer } from '../model/layers.js';
import { type RandomInit, randomInit } from '../structure/choices.js';
import { planStructure, scaleOf, structureOf } from '../structure/structure.js';
import { uniqueName } from '../targets/module-path.js';
import { numberPatterns, structurePatterns } from '../targets/patterns.js';
import { patternValues } from '../targets/select.js';
import { type AdapterOptions, plannedOptions } from './adapter-options.js';

export type { AdapterOptions };

/**
 * New adapters for the layers, as the options say.
 * @throws OnnxLoraError `invalid-argument` naming the option
 */
export function planAdapters(layers: readonly Layer[], given: AdapterOptions): NewAdapter[] {
  const options = resolveOptions(plannedOptions, given, 'planAdapters');
  const { rank, blocks, structure, hybrid, kind, scaling, seed } = options;
  const init = randomInit(options.init);
  const ranks = patternValues(layers, numberPatterns(options.rankPattern, 'rank'), 'rank');
  const alphas = patternValues(layers, numberPatterns(options.alphaPattern, 'alpha'), 'alpha');
  const patterns = structurePatterns(options.structurePattern);
  const chosen = patternValues(layers, patterns, 'structure');
  const names = new Map<string, number>();
  return layers.map((layer) => {
    const weight = layer.linear[0]!.weight;
    const layerRank = ranks.get(layer) ?? rank;
    const usual = kinds[kind].alpha({ rank: layerRank, hybridRank: hybrid, scaling });
    const alpha = alphas.get(layer) ?? options.alpha ?? usual;
    const plan = planStructure(weight.in, layer.part?.width ?? weight.out, {
      structure,
      blocks,
      ...chosen.get(layer),
      rank: layerRank,
      hybridRank: hybrid,
    });
    const record = {
      ...plan,
      ...(layer.part ? { part: { first: layer.part.first, of: layer.part.of } } : {}),
      name: uniqueName(layer.module, names),
      weight: weight.name,
      ...kindEntry(kind),
      rank: layerRank,
      alpha,
      scaling,
      scale: checkedScale(scaleOf(alpha, layerRank, hybrid, scaling)),
    };
    return { layer, record, values: startValues(record, init, seed) };
  });
}

function checkedScale(scale: number): number {
  if (Number.isFinite(Math.fround(scale))) return scale;
  throw new OnnxLoraError(
    'invalid-argument',
    `alpha gives the scale ${scale}, expected a finite number that float32 holds, up to 3.4e38`,
  );
}

function startValues(
  record: NewAdapter['record'],
  init: RandomInit,
  seed: number,
): (factor: FactorName) => Float64Array {
  const structure = structureOf(record);
  const { hybridRank } = structure;
  const sizes = new Map(factorTensors(record).map(({ key, shape }) => [key, size(shape)]));
  return (factor) => {
    const count = sizes.get(factor) ?? 0;
    if (factor === 'b' || factor === 'generalB') return new Float64Array(count);
    const random = generatorFor(seed, record.name, factor);
    const general = { ...structure, grid: [1, 1] as const };
    const [shape, rank] = factor === 'a' ? [structure, record.rank] : [general, hybridRank];
    return initialA(init, shape, rank, count, random);
  };
}

function size(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}
