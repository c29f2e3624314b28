/** Settings of a run in its checkpoint, so that only the same run resumes it. */
import { createHash } from 'node:crypto';
import type { Dataset } from '../../data/dataset.js';
import type { Settings } from '../../training/checkpoint.js';
import type { ForwardGraph } from '../../training/forward.js';
import type { ResolvedOptions } from '../../training/options.js';

/**
 * Everything that the numbers of a run depend on.
 * @param data what is trained on, and what is evaluated with
 */
export function settingsOf(
  options: ResolvedOptions,
  { set }: ForwardGraph,
  data: readonly Dataset[],
  modelBytes: number,
): Settings {
  const { loss, batchSize, accumulate, shuffle, seed, optimizer, lr, lrRatio, schedule, warmup } =
    options;
  const { weightDecay, eps, momentum, clip, dropout, betas } = options;
  const listed = (value: number | readonly number[] | undefined) =>
    value === undefined ? null : [value].flat().join(' ');
  return {
    ...{ loss, batchSize, accumulate, shuffle, seed, optimizer, lr, lrRatio, schedule, warmup },
    ...{ weightDecay, eps, momentum, clip, dropout },
    epochs: options.epochs ?? null,
    steps: options.steps ?? null,
    betas: betas.join(' '),
    ignoreIndex: options.ignoreIndex ?? null,
    labelSmoothing: options.labelSmoothing ?? null,
    temperature: options.temperature ?? null,
    classWeights: listed(options.classWeights),
    focalGamma: options.focalGamma ?? null,
    posWeight: listed(options.posWeight),
    blank: options.blank ?? null,
    scale: options.scale ?? null,
    modelOutput: options.modelOutput ?? null,
    trainBias: options.trainBias ?? false,
    samples: data.map(({ size }) => size).join(' and '),
    ...recipesOf(data),
    adapters: createHash('sha256').update(JSON.stringify(set)).digest('hex').slice(0, 16),
    modelBytes,
  };
}

/** Nothing for arrays, which are what they are. */
function recipesOf(data: readonly Dataset[]): Settings {
  const recipes = data.flatMap(({ recipe }) => (recipe === undefined ? [] : [recipe]));
  return recipes.length === 0 ? {} : { recipe: recipes.join('; ') };
}
