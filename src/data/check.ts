/** Checks a dataset before the first step. */
import { OnnxLoraError } from '../errors.js';
import { checkBatches } from './batch-sizes.js';
import type { FeedPlan } from './convert.js';
import type { Dataset } from './dataset.js';
import { matchKeys } from './match.js';
import type { DataNeeds } from './needs.js';
import { type ScanOptions, scan } from './scan.js';
import { valueRules } from './value-rules.js';

/** A dataset that fits a graph. */
export interface CheckedData extends FeedPlan {
  /** The keys that batches are made of. */
  readonly keys: readonly string[];
  /** Keys that nothing reads. */
  readonly unused: readonly string[];
}

/**
 * Checks a dataset against a graph: that every input has a key of a type and shape that fits, and
 * then, reading the file once in pieces, that floats are finite, labels are classes, lengths are
 * within bounds, and ids within the tables that they index.
 * @returns how batches become feeds; see `convertBatch`
 * @throws OnnxLoraError `invalid-data` naming file, key, sample, what was expected and found;
 * `invalid-argument` for a batch size that the model or the loss does not take; `aborted`
 */
export async function checkDataset(
  dataset: Dataset,
  needs: DataNeeds,
  options: ScanOptions = {},
): Promise<CheckedData> {
  if (dataset.size === 0) {
    throw new OnnxLoraError('invalid-data', `${dataset.label} holds 0 samples, expected some`, {
      hint: 'The first axis of every array counts samples.',
    });
  }
  const plan = matchKeys(dataset, needs);
  if (needs.batches) checkBatches(dataset, needs, plan, needs.batches);
  await scan(dataset, valueRules(plan, needs), options);
  const keys = new Set(plan.feeds.map(({ key }) => key));
  const unused = [...dataset.keys.keys()].filter((key) => !keys.has(key));
  return { ...plan, keys: [...keys], unused };
}
