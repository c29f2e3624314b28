import { tensorToFloat64 } from '../../runtime/tensor-value.js';
import { mean } from './confusion.js';
import type { MetricAccumulator } from './metric.js';
import { rowsOf } from './rows.js';

/**
 * `mse`, and `r2`: 1 - Σ(y - z)² / Σ(y - ȳ)² of each element of the last axis, then their mean, as
 * scikit-learn's r2_score.
 */
export function regression(): MetricAccumulator {
  const columns: Column[] = [];
  return {
    add(logits, batch) {
      const target = tensorToFloat64(batch.get('target')!);
      const single = logits.dims.length < 2;
      let i = 0;
      for (const row of rowsOf(logits)) {
        row.forEach((value, axis) => {
          const column = single ? 0 : axis;
          columns[column] ??= new Column();
          columns[column].add(value, target[i++]!);
        });
      }
    },
    result: () => ({
      mse: mean(columns.map(({ mse }) => mse)),
      r2: mean(columns.map(({ r2 }) => r2)),
    }),
  };
}

class Column {
  private count = 0;
  private errors = 0;
  private mean = 0;
  private deviations = 0;

  /** Welford's update: Σ(y - ȳ)² without the difference of two large sums. */
  add(value: number, target: number): void {
    this.count++;
    this.errors += (target - value) ** 2;
    const before = target - this.mean;
    this.mean += before / this.count;
    this.deviations += before * (target - this.mean);
  }

  get mse(): number {
    return this.errors / this.count;
  }

  get r2(): number {
    if (this.deviations > 0) return 1 - this.errors / this.deviations;
    // A target that never changes has nothing to explain.
    return this.errors === 0 ? 1 : 0;
  }
}
