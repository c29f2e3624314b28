import { DEFAULT_IGNORE_INDEX } from '../../data/ignore-index.js';
import { tensorToFloat64 } from '../../runtime/tensor-value.js';
import type { MetricAccumulator, MetricOptions } from './metric.js';
import { argmax, type Row, rowsOf } from './rows.js';

/**
 * `perplexity`, exp of the mean of -log p(next label), and `accuracy`, the share of next labels that
 * are the most probable one, of logits [B, T, V] against `labels` [B, T].
 */
export function language({ ignoreIndex = DEFAULT_IGNORE_INDEX }: MetricOptions): MetricAccumulator {
  let [surprise, right, count] = [0, 0, 0];
  return {
    add(logits, batch) {
      const labels = tensorToFloat64(batch.get('labels')!);
      const length = logits.dims[1]!;
      let i = 0;
      for (const row of rowsOf(logits)) {
        const isLast = ++i % length === 0;
        const next = labels[i]!;
        if (isLast || next === ignoreIndex) continue;
        const best = argmax(row);
        surprise += logSumExp(row, row[best]!) - row[next]!;
        if (best === next) right++;
        count++;
      }
    },
    result: () => ({ perplexity: Math.exp(surprise / count), accuracy: right / count }),
  };
}

function logSumExp(row: Row, largest: number): number {
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += Math.exp(row[i]! - largest);
  return largest + Math.log(sum);
}
