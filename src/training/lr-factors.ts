/**
 * LoRA+ (arXiv 2402.12354): B learns at another rate than A. What belongs to which is PEFT's choice
 * (create_loraplus_optimizer): biases go with B, and do not decay; the weights of a head go with A.
 */
import type { ModelManifest } from '../adapters/model/manifest.js';
import type { GraphBuilder } from '../graph/builder.js';
import type { Factors } from './optimizers/arithmetic.js';
import type { Parameter } from './parameters.js';

/** Of the adapters that train, with the names of the biases among their parameters. */
export interface Trained {
  readonly set: Pick<ModelManifest, 'adapters' | 'head'>;
  readonly parameters: readonly Parameter[];
  readonly biases: readonly string[];
}

/**
 * The factors of learning rate and weight decay for each element of theta.
 * @param ratio the learning rate of B over that of A
 */
export function lrFactors(
  graph: GraphBuilder,
  { set, parameters, biases }: Trained,
  ratio: number,
): Factors | undefined {
  if (ratio === 1) return undefined;
  const second = new Set(set.adapters.flatMap(({ b, generalB }) => [b, generalB]));
  const areBiases = new Set([...biases, set.head?.bias]);
  const rates = parameters.map(({ name, shape, length }) => {
    const isFast = second.has(name) || areBiases.has(name) || shape.length === 1;
    return { length, value: isFast ? ratio : 1 };
  });
  const decays = parameters.map(({ name, length }) => ({
    length,
    value: areBiases.has(name) ? 0 : 1,
  }));
  const allDecay = decays.every(({ value }) => value === 1);
  return {
    rates: stepsOf(graph, rates, 'lr_factors'),
    decays: allDecay ? undefined : stepsOf(graph, decays, 'decay_factors'),
  };
}

interface Stretch {
  readonly length: number;
  readonly value: number;
}

/** A constant vector that has few values: one node a stretch, so that the graph stays small. */
function stepsOf(graph: GraphBuilder, stretches: readonly Stretch[], name: string): string {
  const parts = merged(stretches).map(({ length, value }) =>
    graph.op('Expand', [graph.scalar('float32', value), graph.integers([length])], {}, name),
  );
  return parts.length === 1 ? parts[0]! : graph.op('Concat', parts, { axis: { int: 0 } }, name);
}

/** Neighbours of one value as one. */
function merged(stretches: readonly Stretch[]): Stretch[] {
  const result: Stretch[] = [];
  for (const { length, value } of stretches) {
    const before = result.at(-1)?.value === value ? result.pop()!.length : 0;
    result.push({ length: before + length, value });
  }
  return result;
}
