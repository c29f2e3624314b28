/**
 * Clipping and the optimizer as nodes over the flat vectors: about two dozen of them, whatever the
 * number of adapters. What changes from step to step comes in as scalars.
 */
import type { GraphBuilder } from '../graph/builder.js';

export const optimizers = ['adamw', 'sgd'] as const;
export type OptimizerName = (typeof optimizers)[number];

export interface OptimizerOptions {
  readonly optimizer: OptimizerName;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  /** Of SGD. */
  readonly momentum: number;
  /** The largest norm of the whole gradient; 0 for no limit. */
  readonly clip: number;
}

/** Scalars that a step is given. */
export interface StepScalars {
  readonly lr: number;
  /** `1 - β1^t` and `1 - β2^t` for AdamW, t = 1, 2, … */
  readonly correction1: number;
  readonly correction2: number;
}

/** A state vector, and its value behind the step. */
export interface StateUpdate {
  readonly input: string;
  readonly output: string;
}

/** The moments that an optimizer keeps, by the names of its state vectors. */
export function momentsOf({ optimizer, momentum }: OptimizerOptions): readonly string[] {
  if (optimizer === 'adamw') return ['m', 'v'];
  return momentum === 0 ? [] : ['m'];
}

/** The scalars of update `t`, counted from 1. */
export function stepScalars(
  { betas }: Pick<OptimizerOptions, 'betas'>,
  lr: number,
  t: number,
): StepScalars {
  return { lr, correction1: 1 - betas[0] ** t, correction2: 1 - betas[1] ** t };
}

/** Words for arithmetic on float32 vectors. */
class Arithmetic {
  constructor(readonly graph: GraphBuilder) {}

  number = (value: number) => this.graph.scalar('float32', value);
  add = (a: string, b: string) => this.graph.op('Add', [a, b], {}, 'optimizer/add');
  sub = (a: string, b: string) => this.graph.op('Sub', [a, b], {}, 'optimizer/sub');
  mul = (a: string, b: string) => this.graph.op('Mul', [a, b], {}, 'optimizer/mul');
  div = (a: string, b: string) => this.graph.op('Div', [a, b], {}, 'optimizer/div');
  sqrt = (a: string) => this.graph.op('Sqrt', [a], {}, 'optimizer/sqrt');
  scale = (a: string, factor: number) => (factor === 1 ? a : this.mul(a, this.number(factor)));
}

/** The L2 norm of a vector, a scalar. */
export function normOf(graph: GraphBuilder, vector: string): string {
  const squares = graph.op('Mul', [vector, vector], {}, 'optimizer/squares');
  const sum = graph.op('ReduceSum', [squares], { keepdims: { int: 0 } }, 'optimizer/sum');
  return graph.op('Sqrt', [sum], {}, 'gradient_norm');
}

/** `g · min(1, clip / (|g| + 1e-6))`, as torch.nn.utils.clip_grad_norm_. */
export function clipped(graph: GraphBuilder, g: string, norm: string, clip: number): string {
  if (clip === 0) return g;
  const { number, add, div, mul } = new Arithmetic(graph);
  const factor = div(number(clip), add(norm, number(1e-6)));
  return mul(g, graph.op('Min', [factor, number(1)], {}, 'optimizer/factor'));
}

/**
 * The state behind one update with the gradient `g`; `lr`, `correction1` and `correction2` are
 * scalar inputs of the graph.
 */
export function optimizerUpdates(
  graph: GraphBuilder,
  g: string,
  options: OptimizerOptions,
): StateUpdate[] {
  return options.optimizer === 'adamw' ? adamW(graph, g, options) : sgd(graph, g, options);
}

/**
 * Adam with decoupled weight decay (arXiv 1711.05101):
 * m' = β1·m + (1-β1)·g, v' = β2·v + (1-β2)·g²,
 * θ' = θ·(1 - lr·λ) - lr · (m'/c1) / (√(v'/c2) + ε), c = 1 - β^t
 */
function adamW(graph: GraphBuilder, g: string, options: OptimizerOptions): StateUpdate[] {
  const { betas, eps, weightDecay } = options;
  const { number, add, sub, mul, div, sqrt, scale } = new Arithmetic(graph);
  const m = add(scale('m', betas[0]), scale(g, 1 - betas[0]));
  const v = add(scale('v', betas[1]), scale(mul(g, g), 1 - betas[1]));
  // Scalars are combined first: a pass over the vector less.
  const rate = div('lr', 'correction1');
  const root = sqrt(div(v, 'correction2'));
  const update = div(mul(m, rate), add(root, number(eps)));
  const theta = sub(decayed(graph, weightDecay), update);
  return [
    { input: 'theta', output: theta },
    { input: 'm', output: m },
    { input: 'v', output: v },
  ];
}

function decayed(graph: GraphBuilder, weightDecay: number): string {
  if (weightDecay === 0) return 'theta';
  const { number, sub, mul, scale } = new Arithmetic(graph);
  return mul('theta', sub(number(1), scale('lr', weightDecay)));
}

/** torch.optim.SGD: g' = g + λ·θ, m' = μ·m + g', θ' = θ - lr·m' */
function sgd(graph: GraphBuilder, g: string, options: OptimizerOptions): StateUpdate[] {
  const { weightDecay, momentum } = options;
  const { add, sub, mul, scale } = new Arithmetic(graph);
  const full = weightDecay === 0 ? g : add(g, scale('theta', weightDecay));
  const m = momentum === 0 ? full : add(scale('m', momentum), full);
  const theta = { input: 'theta', output: sub('theta', mul('lr', m)) };
  return momentum === 0 ? [theta] : [theta, { input: 'm', output: m }];
}
