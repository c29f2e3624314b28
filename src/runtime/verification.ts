/** The findings of a comparison. */
export interface Verification {
  /** Batches of inputs that both models ran with. */
  readonly samples: number;
  /** Over all outputs, samples and elements; infinite where one model gives NaN and the other not. */
  readonly maxAbsDiff: number;
  /** The same as a share of the greatest element of the reference's output, over all outputs. */
  readonly maxRelDiff: number;
  /** The largest relative difference that counts as rounding. */
  readonly tolerance: number;
  /**
   * For every output: greatest difference <= tolerance * greatest element; and where it is known what the
   * adapters move, the difference is not a part of that.
   */
  readonly passed: boolean;
  /** The output that is worst by that measure. */
  readonly output?: string;
  /** The change by the adapters, measured as the difference is; where the model without them was run. */
  readonly moved?: {
    /** Over all outputs, samples and elements. */
    readonly maxAbsDiff: number;
    /** The same as a share of the greatest element of the reference's output. */
    readonly maxRelDiff: number;
  };
  /**
   * Weights that were rounded to integers or float16, read back from the file; then the reference multiplies with what was
   * read, in floats.
   */
  readonly weights?: {
    /** Number of them. */
    readonly count: number;
    /**
     * The greatest error, over what is allowed; at most 1 where passed. Of sums that were rounded again: over
     * that of the least scale that cuts off nothing, of numbers that share one; and every number is the nearest that
     * its integer can say. Of `to`: over one step of the block, or over one rounding to float16.
     */
    readonly worst: number;
  };
  /**
   * Whether the samples prove the fold: the adapters move the outputs by so much more than rounding that
   * half of them could not be missing unseen; of `weights`, whether their numbers do.
   */
  readonly proven?: boolean;
  /** Why it was not passed, or proves nothing. */
  readonly reason?: string;
}
