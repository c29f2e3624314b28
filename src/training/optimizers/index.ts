/**
 * The list of optimizers, and how one gets into a graph: as nodes over the flat vectors, about two
 * dozen of them, whatever the number of adapters. What changes from step to step comes in as scalars.
 */
import type { GraphBuilder } from '../../graph/builder.js';
import { byName, optionsByChoice } from '../../options/by-choice.js';
import { type OptionTable, option } from '../../options/option.js';
import { pickOptions, resolveOptions } from '../../options/resolve.js';
import { choice } from '../../options/schemas.js';
import { adamW } from './adamw.js';
import { Arithmetic, type Factors } from './arithmetic.js';
import { lion } from './lion.js';
import type { Optimizer, StepScalar } from './optimizer.js';
import { scalarsAt } from './scalars.js';
import { sgd } from './sgd.js';

/** The simplest first. */
const list = [sgd, lion, adamW] as const;

/** Name of an optimizer. */
export type OptimizerName = (typeof list)[number]['name'];
/** The optimizers, the simplest first. */
export const optimizerNames: readonly OptimizerName[] = list.map(({ name }) => name);

/** The choice of an optimizer. */
export const optimizerChoice = {
  /** Default adamw. */
  optimizer: option(choice(optimizerNames), {
    group: 'Optimizer',
    value: 'NAME',
    default: 'adamw',
    summary: list.map(({ name, summary }) => `${name}: ${summary}`).join('; '),
    example: '--optimizer sgd',
  }),
};

/** The options of all optimizers. */
export const ownOptimizerOptions = optionsByChoice('optimizer', byName(list));

/** The numbers of all optimizers; each reads those that it brings as options. */
export interface Hyperparameters {
  /** Weight decay: decoupled from the gradient, but added to it by SGD. */
  readonly weightDecay: number;
  /** Of AdamW and Lion. */
  readonly betas: readonly [number, number];
  /** Of AdamW. */
  readonly eps: number;
  /** Of SGD. */
  readonly momentum: number;
}

/** An optimizer with its numbers; those that are left out are as it has them by default. */
export type OptimizerOptions = {
  readonly [K in keyof Hyperparameters]?: Hyperparameters[K] | undefined;
} & {
  /** The optimizer's name. */
  readonly optimizer: OptimizerName;
};

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

/** The optimizer with its own options, and its defaults for those that are not given. */
function settled(given: OptimizerOptions) {
  const optimizer = optimizerOf(given.optimizer);
  const own = pickOptions(optimizer.options, { ...given });
  return { optimizer, options: resolveOptions(optimizer.options, own, optimizer.name) };
}

/** Options as runs record them: those that the optimizer does not have are as another one has them by default. */
export function recordedOptions(given: OptimizerOptions): Hyperparameters {
  const entries = Object.entries(ownOptimizerOptions as OptionTable).map(([key, { defaultBy }]) => [
    key,
    Object.values(defaultBy?.defaults ?? {}).findLast((value) => value !== undefined),
  ]);
  const { lr, ...recorded } = { ...Object.fromEntries(entries), ...settled(given).options };
  return recorded as Hyperparameters;
}

/** The moments that an optimizer keeps, by the names of its state vectors. */
export function momentsOf(given: OptimizerOptions): readonly string[] {
  const { optimizer, options } = settled(given);
  return optimizer.moments(options);
}

/** Inputs of an update besides the learning rate, by name. */
export function scalarsOf(given: OptimizerOptions): Readonly<Record<string, StepScalar>> {
  const { optimizer, options } = settled(given);
  return optimizer.scalars(options);
}

/** The scalars of update `t`, counted from 1, with the learning rate. */
export function stepScalars(
  options: OptimizerOptions,
  lr: number,
  t: number,
): Readonly<Record<string, number>> {
  return scalarsAt(scalarsOf(options), lr, t);
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
  given: OptimizerOptions,
  factors?: Factors,
): StateUpdate[] {
  const { optimizer, options } = settled(given);
  const { theta, lr } = inputs as { theta: string; lr: string };
  const next = optimizer.update(
    new Arithmetic(graph, factors),
    { ...inputs, theta, lr, g },
    options,
  );
  const outputs = Object.entries({ ...next });
  const kept = ['theta', ...optimizer.moments(options)];
  return outputs
    .filter(([name]) => kept.includes(name))
    .map(([name, output]) => ({ name, input: inputs[name]!, output: output! }));
}
