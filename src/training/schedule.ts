/** Learning rates over a run. */

export const schedules = ['constant', 'linear', 'cosine'] as const;
/** Name of a schedule. */
export type ScheduleName = (typeof schedules)[number];

/** Schedules: the learning rate from step to step. */
export interface Schedule {
  /** Its form after the warmup. */
  readonly kind: ScheduleName;
  /** The highest learning rate. */
  readonly lr: number;
  /** Steps that the rate rises from zero in, linearly. */
  readonly warmup: number;
  /** Steps of the whole run. */
  readonly steps: number;
}

/**
 * The learning rate of a step, counted from 0. With w warm-up steps and N steps in all:
 * below w `lr · i/w`; then `lr`, `lr · (N-i)/(N-w)` or `lr · ½(1 + cos(π (i-w)/(N-w)))`. These are the
 * formulas of transformers' get_scheduler.
 */
export function learningRate({ kind, lr, warmup, steps }: Schedule, step: number): number {
  if (step < warmup) return (lr * step) / warmup;
  const progress = (step - warmup) / Math.max(1, steps - warmup);
  if (kind === 'linear') return lr * Math.max(0, 1 - progress);
  if (kind === 'cosine') return lr * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
  return lr;
}
