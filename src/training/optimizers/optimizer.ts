/** An optimizer: the vectors that it keeps, the numbers it is fed, and one update as nodes. */

import type { OptionTable, ResolvedOf } from '../../options/option.js';
import type { Arithmetic } from './arithmetic.js';

/** A number that changes from update to update. */
export interface StepScalar {
  /** For the manifest of a step graph. */
  readonly meaning: string;
  /** Its value at update `t`, counted from 1. */
  at(t: number): number;
}

/**
 * One optimizer. `Vector` are the state vectors that it keeps besides theta, `Scalar` what an update is
 * fed besides the learning rate `lr`, `Options` the table of the options that it brings, `lr` among them.
 */
export interface Optimizer<
  Name extends string = string,
  Vector extends string = string,
  Scalar extends string = string,
  Options extends OptionTable = OptionTable,
> {
  readonly name: Name;
  /** For people, e.g. "Adam with decoupled weight decay". */
  readonly summary: string;
  /** The options that it brings, with its own defaults. */
  readonly options: Options;
  /** The vectors that it keeps with these options. */
  moments(options: ResolvedOf<Options>): readonly Vector[];
  scalars(options: ResolvedOf<Options>): Readonly<Record<Scalar, StepScalar>>;
  /**
   * Writes one update.
   * @param values theta, the clipped gradient g, the state vectors, `lr` and the other scalars, by what
   * they are called in the graph
   * @returns theta and the state vectors after it
   */
  update(
    math: Arithmetic,
    values: Readonly<Record<'theta' | 'g' | 'lr' | Vector | Scalar, string>>,
    options: ResolvedOf<Options>,
  ): Readonly<Record<'theta', string> & Partial<Record<Vector, string>>>;
}
