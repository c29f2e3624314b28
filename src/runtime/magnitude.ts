/** The size of the numbers that a difference is a share of. */

// Less than that models give as numbers of their own, pixels and counts among them.
const FIXED = 5000;
/** Times the greatest of the others. */
export const FAR = 1000;

/**
 * The greatest finite number, without those that stand for -∞ (-1e9, the least float16 ..): beside them any
 * difference of the others would be small. They are far from all others, and equal in both outputs.
 */
export class Magnitude {
  private own = 0;
  private fixed = 0;

  /** Takes a number of the reference, and whether the other output has the same. */
  add(number: number, isSame: boolean): void {
    const size = Math.abs(number);
    if (!(size < Number.POSITIVE_INFINITY)) return;
    if (isSame && size >= FIXED) this.fixed = Math.max(this.fixed, size);
    else this.own = Math.max(this.own, size);
  }

  get value(): number {
    const stands = this.own > 0 && this.fixed >= FAR * this.own;
    return stands ? this.own : Math.max(this.own, this.fixed);
  }
}
