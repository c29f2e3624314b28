/**
 * The list of optimizers, and how one gets into a graph: as nodes over the flat vectors, about two
 * dozen of them, whatever the number of adapters. What changes from step to step comes in as scalars.
 */
import type { GraphBuilder } from '../../graph/builder.js';
import { adamW } from './adamw.js';
import { Arithmetic, type Factors } from './arithmetic.js';
import { lion } from './lion.js';
import type { Hyperparameters, Optimizer, OwnOption, StepScalar } from './optimizer.js';
import { sgd } from './sgd.js';

export type { OwnOption } from './optimizer.js';

/** The simplest first. */
const list = [sgd, lion, adamW] as const;

/** Name of an optimizer. */
export type OptimizerName = (typeof list)[number]['name'];
/** The optimizers, the simplest first. */
export const optimizerNames: readonly OptimizerName[] = list.map(({ name }) => name);

/** An optimizer and its hyperparameters. */
export interface OptimizerOptions extends Hyperparameters {
  /** Name of the optimizer. */
  readonly optimizer: OptimizerName;
}

/** A state vector by what it is, with its names in the graph before and after a step. */
export interface StateUpdate {
  /** The state vector: `theta`, `m` or `v`. */
  readonly name: string;
  /** Name of the graph input before the step. */
  readonly input: string;
  /** Name of the value after it. */
  readonly output: string;
}

/** The optimizer of a name. */
export function optimizerOf(name: OptimizerName): Optimizer {
  return list.find((one) => one.name === name)!;
}

/** All optimizers in a line, for people. */
export const optimizerSummary = list.map(({ name, summary }) => `${name}: ${summary}`).join('; ');

/** The optimizers that have a use for an option. */
export function optimizersWith(option: OwnOption): OptimizerName[] {
  return list.filter(({ defaults }) => option in defaults).map(({ name }) => name);
}

// In the record of a run, the value of options that its optimizer does not use.
const unused = { betas: [0.9, 0.999], eps: 1e-8, momentum: 0.9 } as const;

/** The learning rate and the options of an optimizer where none are given. */
export function defaultsOf(name: OptimizerName) {
  return { ...unused, ...optimizerOf(name).defaults };
}

/** The moments that an optimizer keeps, by the names of its state vectors. */
export function momentsOf(options: OptimizerOptions): readonly string[] {
  return optimizerOf(options.optimizer).moments(options);
}

/** Inputs of an update besides the learning rate, by name. */
export function scalarsOf({
  optimizer,
  betas,
}: Pick<OptimizerOptions, 'optimizer' | 'betas'>): Readonly<Record<string, StepScalar>> {
  return optimizerOf(optimizer).scalars({ betas });
}

/** The scalars of update `t`, counted from 1, with the learning rate. */
export function stepScalars(
  options: Pick<OptimizerOptions, 'optimizer' | 'betas'>,
  lr: number,
  t: number,
): Readonly<Record<string, number>> {
  const own = Object.entries(scalarsOf(options)).map(([name, { at }]) => [name, at(t)] as const);
  return { lr, ...Object.fromEntries(own) };
}

/**
 * The state after one update with the gradient `g`.
 * @param inputs the graph inputs theta, state vectors and scalars, by what they are
 * @param factors for elements that do not all have the same learning rate
 */
export function optimizerUpdates(
  graph: GraphBuilder,
  g: string,
  inputs: Readonly<Record<string, string>>,
  options: OptimizerOptions,
  factors?: Factors,
): StateUpdate[] {
  const { update } = optimizerOf(options.optimizer);
  const { theta, lr } = inputs as { theta: string; lr: string };
  const next = update(new Arithmetic(graph, factors), { ...inputs, theta, lr, g }, options);
  const outputs = Object.entries({ ...next });
  const kept = ['theta', ...momentsOf(options)];
  return outputs
    .filter(([name]) => kept.includes(name))
    .map(([name, output]) => ({ name, input: inputs[name]!, output: output! }));
}
