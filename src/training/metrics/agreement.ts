import { DEFAULT_IGNORE_INDEX } from '../../data/ignore-index.js';
import { tensorToFloat64 } from '../../runtime/tensor-value.js';
import type { MetricAccumulator, MetricOptions } from './metric.js';
import { argmax, rowsOf } from './rows.js';

/**
 * `agreement`: the share of positions at which student and `teacher` hold the same class for the most
 * probable one. Positions whose label is ignored do not count, where there are labels.
 */
export function agreement({
  ignoreIndex = DEFAULT_IGNORE_INDEX,
}: MetricOptions): MetricAccumulator {
  let [same, count] = [0, 0];
  return {
    add(logits, batch) {
      const labels = batch.get('labels');
      const ids = labels && tensorToFloat64(labels);
      const teacher = rowsOf(batch.get('teacher')!);
      let i = 0;
      for (const row of rowsOf(logits)) {
        const wanted = argmax(teacher.next().value!);
        if (ids?.[i++] === ignoreIndex) continue;
        count++;
        if (argmax(row) === wanted) same++;
      }
    },
    result: () => ({ agreement: same / count }),
  };
}
