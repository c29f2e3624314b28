/** The factor of the loss in the backward pass, which follows what overflows: as PyTorch's GradScaler has it. */

/** Updates without an overflow after which the scale is doubled. */
const GROWTH_INTERVAL = 2000;

// Beyond it float32 overflows with gradients of 256, and so it does before the scale is halved a few times.
export const MAX_LOSS_SCALE = 2 ** 120;

/** The state of a scale, as a checkpoint keeps it. */
export interface LossScaleState {
  readonly value: number;
  /** Updates since the last change. */
  readonly good: number;
  /** Updates that were left out. */
  readonly skipped: number;
}

export class LossScale {
  private good = 0;
  /** Updates that were left out. */
  skipped = 0;

  /** @param value 1 for none: then nothing changes it */
  constructor(public value: number) {}

  get state(): LossScaleState {
    const { value, good, skipped } = this;
    return { value, good, skipped };
  }

  restore({ value, good, skipped }: LossScaleState): void {
    Object.assign(this, { value, good, skipped });
  }

  /** Takes an update that was finite. */
  grow(): void {
    if (this.value === 1 || ++this.good < GROWTH_INTERVAL) return;
    this.value = Math.min(MAX_LOSS_SCALE, 2 * this.value);
    this.good = 0;
  }

  /**
   * Takes an update whose gradient overflowed.
   * @returns whether a smaller scale may help
   */
  shrink(): boolean {
    if (this.value === 1) return false;
    this.value /= 2;
    this.good = 0;
    this.skipped++;
    return true;
  }
}
