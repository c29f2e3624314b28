import { DEFAULT_IGNORE_INDEX } from '../../data/ignore-index.js';
import { tensorToFloat64 } from '../../runtime/tensor-value.js';
import { ConfusionMatrix } from './confusion.js';
import type { MetricAccumulator, MetricOptions } from './metric.js';
import { argmax, rowsOf } from './rows.js';

/** `accuracy` and macro `f1` of logits [.., C] against `labels` [..]. */
export function classification({
  ignoreIndex = DEFAULT_IGNORE_INDEX,
}: MetricOptions): MetricAccumulator {
  const confusion = new ConfusionMatrix();
  return {
    confusion,
    add(logits, batch) {
      const labels = tensorToFloat64(batch.get('labels')!);
      let i = 0;
      for (const row of rowsOf(logits)) {
        const label = labels[i++]!;
        if (label !== ignoreIndex) confusion.add(label, argmax(row));
      }
    },
    result: () => ({ accuracy: confusion.accuracy(), f1: confusion.macroF1() }),
  };
}
