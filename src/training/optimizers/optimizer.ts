/** An optimizer: the vectors that it keeps, the numbers it is fed, and one update as nodes. */

import type { Arithmetic } from './arithmetic.js';

/** The numbers of all optimizers; each reads those that its `defaults` name, and the weight decay. */
export interface Hyperparameters {
  /** Decoupled weight decay: θ loses lr · weightDecay · θ in each step. */
  readonly weightDecay: number;
  /** Of AdamW and Lion. */
  readonly betas: readonly [number, number];
  /** Of AdamW. */
  readonly eps: number;
  /** Of SGD. */
  readonly momentum: number;
}

/** The options that not every optimizer has a use for. */
export type OwnOption = Exclude<keyof Hyperparameters, 'weightDecay'>;

/** A number that changes from update to update. */
export interface StepScalar {
  /** For the manifest of a step graph. */
  readonly meaning: string;
  /** Its value at update `t`, counted from 1. */
  at(t: number): number;
}

/**
 * One optimizer. `Vector` are the state vectors that it keeps besides theta, `Scalar` what an update is
 * fed besides the learning rate `lr`.
 */
export interface Optimizer<
  Name extends string = string,
  Vector extends string = string,
  Scalar extends string = string,
> {
  readonly name: Name;
  /** For people, e.g. "Adam with decoupled weight decay". */
  readonly summary: string;
  /** The learning rate where none is given, and the options that it uses with their defaults. */
  readonly defaults: { readonly lr: number } & Partial<Pick<Hyperparameters, OwnOption>>;
  /** The vectors that it keeps with these options. */
  moments(options: Hyperparameters): readonly Vector[];
  scalars(options: Pick<Hyperparameters, 'betas'>): Readonly<Record<Scalar, StepScalar>>;
  /**
   * Writes one update.
   * @param values theta, the clipped gradient g, the state vectors, `lr` and the other scalars, by what
   * they are called in the graph
   * @returns theta and the state vectors after it
   */
  update(
    math: Arithmetic,
    values: Readonly<Record<'theta' | 'g' | 'lr' | Vector | Scalar, string>>,
    options: Hyperparameters,
  ): Readonly<Record<'theta', string> & Partial<Record<Vector, string>>>;
}
