/** Counts of how often each label was predicted as each class. */
export class ConfusionMatrix {
  // Only what occurs: a vocabulary squared would fit no memory.
  private readonly counts = new Map<number, Map<number, number>>();

  add(label: number, prediction: number): void {
    const row = this.counts.get(label) ?? new Map<number, number>();
    row.set(prediction, this.count(label, prediction) + 1);
    this.counts.set(label, row);
  }

  count(label: number, prediction: number): number {
    return this.counts.get(label)?.get(prediction) ?? 0;
  }

  /** The share of labels that were predicted. */
  accuracy(): number {
    let [right, all] = [0, 0];
    for (const { label, prediction, count } of this.cells()) {
      all += count;
      if (label === prediction) right += count;
    }
    return right / all;
  }

  /** F1 = 2·true positives / (labels + predictions) of each class that occurs as one of them. */
  f1(): Map<number, number> {
    const total = new Map<number, number>();
    const plus = (index: number, count: number) =>
      total.set(index, (total.get(index) ?? 0) + count);
    for (const { label, prediction, count } of this.cells()) {
      plus(label, count);
      plus(prediction, count);
    }
    return new Map([...total].map(([index, sum]) => [index, (2 * this.count(index, index)) / sum]));
  }

  /** The mean of the F1 of all classes that occur as label or prediction, as scikit-learn's. */
  macroF1(): number {
    return mean([...this.f1().values()]);
  }

  /** Every pair that occurred. */
  *cells() {
    for (const [label, row] of this.counts) {
      for (const [prediction, count] of row) yield { label, prediction, count };
    }
  }
}

export function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
