/**
 * The numbers that optimizers are fed at each step besides the learning rate. A page with a step graph computes it too, so
 * that nothing in here imports a package.
 */
import type { StepScalar } from './optimizer.js';

/** The options that such numbers depend on. */
interface Numbers {
  readonly betas: readonly [number, number];
}

/** All of them by name; each optimizer takes its own. */
export const stepNumbers = ({ betas }: Numbers) => ({
  correction1: {
    meaning: `1 - ${betas[0]}^t, t = 1, 2, … counts updates`,
    at: (t: number) => 1 - betas[0] ** t,
  },
  correction2: { meaning: `1 - ${betas[1]}^t`, at: (t: number) => 1 - betas[1] ** t },
});

/** The scalars of update `t`, counted from 1, with the learning rate. */
export function scalarsAt(
  scalars: Readonly<Record<string, StepScalar>>,
  lr: number,
  t: number,
): Readonly<Record<string, number>> {
  const own = Object.entries(scalars).map(([name, { at }]) => [name, at(t)] as const);
  return { lr, ...Object.fromEntries(own) };
}
