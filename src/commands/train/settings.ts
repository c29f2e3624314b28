/** Settings of a run in its checkpoint, so that only the same run resumes it. */
import { createHash } from 'node:crypto';
import type { Dataset } from '../../data/dataset.js';
import type { OptionTable } from '../../options/option.js';
import type { Settings } from '../../training/checkpoint.js';
import type { ForwardGraph } from '../../training/forward.js';
import { lossSettings } from '../../training/loss-settings.js';
import { lossTrainOptions } from '../../training/losses/index.js';
import { recordedOptions } from '../../training/optimizers/index.js';
import { type ResolvedTrainOptions, trainOptions } from '../options/train.js';

const lossKeys = Object.keys({ ...lossSettings, ...lossTrainOptions });

/** The data of a run. */
export interface Samples {
  readonly trained: Pick<Dataset, 'size' | 'recipe'>;
  readonly evaluated: Pick<Dataset, 'size' | 'recipe'> | undefined;
}

/**
 * Everything that the numbers of a run depend on.
 */
export function settingsOf(
  options: ResolvedTrainOptions,
  { set }: ForwardGraph,
  { trained, evaluated }: Samples,
  modelBytes: number,
): Settings {
  const { batchSize, accumulate, shuffle, seed, optimizer, lr, lrRatio, schedule } = options;
  const { warmup, clip, dropout, trainBias, steps = null } = options;
  return {
    ...{ batchSize, accumulate, shuffle, seed, optimizer, lr, lrRatio, schedule, warmup },
    ...{ clip, dropout, steps, trainBias },
    ...listed(recordedOptions(options)),
    ...notByDefault(options, ['epochs', ...lossKeys]),
    samples: String(trained.size),
    ...(trained.recipe === undefined ? {} : { recipe: trained.recipe }),
    // The best evaluation so far is one of the same samples.
    evalSamples: evaluated ? [evaluated.size, evaluated.recipe].filter(Boolean).join(', ') : null,
    adapters: createHash('sha256').update(JSON.stringify(set)).digest('hex').slice(0, 16),
    modelBytes,
  };
}

/** Lists as texts. */
function listed(values: object): Settings {
  const entries = Object.entries(values).map(([key, value]) => [
    key,
    Array.isArray(value) ? value.join(' ') : (value ?? null),
  ]);
  return Object.fromEntries(entries);
}

/** Options that are null where they are what they would be anyway. */
function notByDefault(options: ResolvedTrainOptions, keys: readonly string[]): Settings {
  const table: OptionTable = trainOptions;
  const given: Readonly<Record<string, unknown>> = { ...options };
  const entries = keys.map((key) => {
    const { default: usual, defaultBy } = table[key]!;
    const isUsual = given[key] === (usual ?? defaultBy?.defaults[options.loss]);
    return [key, isUsual ? null : given[key]];
  });
  return listed(Object.fromEntries(entries));
}
