/** Whether batches can be as large as they are wanted. */
import { OnnxLoraError } from '../errors.js';
import type { FeedPlan } from './convert.js';
import type { Dataset } from './dataset.js';
import { askerOf } from './label-kind.js';
import type { Batches, GraphNeeds } from './needs.js';

/**
 * Checks the batch size against inputs with a fixed batch axis, and against pairs, whose batches are
 * anchors followed by their positives: samples of two rows always give that, single rows only in the file's order
 * and in even numbers.
 * @throws OnnxLoraError `invalid-argument`
 */
export function checkBatches(
  dataset: Dataset,
  needs: GraphNeeds,
  { feeds }: FeedPlan,
  { batchSize, shuffle }: Batches,
): void {
  const last = dataset.size % batchSize || batchSize;
  const rows = feeds[0]?.group ?? 1;
  for (const { name, shape } of needs.inputs) {
    const fixed = shape?.[0];
    if (typeof fixed !== 'number') continue;
    const wrong = [batchSize, last].find((size) => size * rows !== fixed);
    if (wrong !== undefined) throw fixedBatch(dataset, name, fixed / rows, wrong);
  }
  if (needs.labelKind !== 'pairs' || rows > 1) return;
  if (shuffle || batchSize % 2 === 1 || last % 2 === 1) {
    throw noPairs(dataset, needs, shuffle);
  }
}

function fixedBatch({ label, size }: Dataset, input: string, fixed: number, found: number) {
  const message = `the model's input ${input} takes batches of ${fixed}, found a batch of ${found} of the ${size} samples in ${label}`;
  return new OnnxLoraError('invalid-argument', message, {
    hint: `Use \`batchSize: ${fixed}\` and a multiple of ${fixed} samples, or export the model with a dynamic batch axis.`,
  });
}

function noPairs({ label }: Dataset, needs: GraphNeeds, shuffle: boolean) {
  const found = shuffle
    ? 'single rows, which shuffling would tear apart'
    : 'batches with an odd number of rows';
  return new OnnxLoraError(
    'invalid-argument',
    `${askerOf(needs)} takes pairs of an anchor and its positive, ${label} gives ${found}`,
    {
      hint: 'Save every input as [pairs, 2, ..]; or use `shuffle: false` with batches whose first half are the anchors.',
    },
  );
}
