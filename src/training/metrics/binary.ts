import { tensorToFloat64 } from '../../runtime/tensor-value.js';
import { ConfusionMatrix, mean } from './confusion.js';
import type { MetricAccumulator } from './metric.js';
import { rowsOf } from './rows.js';

/**
 * `accuracy` over all yes-or-no answers, and `f1` of yes: the mean over the elements of the last axis
 * where it occurs as answer or prediction. A probability above one half is a yes, a logit above 0.
 */
export function binary(): MetricAccumulator {
  const all = new ConfusionMatrix();
  const columns: ConfusionMatrix[] = [];
  return {
    add(logits, batch) {
      const answers = tensorToFloat64((batch.get('target') ?? batch.get('labels'))!);
      const single = logits.dims.length < 2;
      let i = 0;
      for (const row of rowsOf(logits)) {
        row.forEach((value, axis) => {
          const column = single ? 0 : axis;
          columns[column] ??= new ConfusionMatrix();
          const [answer, prediction] = [Number(answers[i++]! > 0.5), Number(value > 0)];
          columns[column].add(answer, prediction);
          all.add(answer, prediction);
        });
      }
    },
    result: () => ({
      accuracy: all.accuracy(),
      f1: mean(columns.flatMap((column) => column.f1().get(1) ?? [])),
    }),
  };
}
