/** The course of a loss in few numbers, however long the run is. */

/** Means over stretches of equal length, oldest first. */
export class LossMeans {
  private means: number[] = [];
  private width = 1;
  private sum = 0;
  private count = 0;

  /** @param limit the most stretches, an even number */
  constructor(private readonly limit = 20) {}

  add(value: number): void {
    this.sum += value;
    this.count++;
    if (this.count < this.width) return;
    this.means.push(this.sum / this.count);
    this.sum = 0;
    this.count = 0;
    if (this.means.length === this.limit) this.halve();
  }

  /** The means so far; the stretch that is not full yet counts too. */
  values(): number[] {
    return this.count > 0 ? [...this.means, this.sum / this.count] : [...this.means];
  }

  private halve(): void {
    const { means } = this;
    this.means = Array.from(
      { length: means.length / 2 },
      (_, i) => (means[2 * i]! + means[2 * i + 1]!) / 2,
    );
    this.width *= 2;
  }
}
