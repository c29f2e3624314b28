/** Whether what a loss takes for logits looks like probabilities. */
import type { GraphBuilder } from '../../graph/builder.js';
import type { Logits } from './loss.js';
import { reduce } from './operators.js';

// Sums of rounded probabilities; float16 has eleven bits.
const TOLERANCE = 2e-3;

/**
 * A scalar: how far `logits` are from being probabilities. For Softmax, the largest of |Σ row - 1| and of
 * what is below 0; for Sigmoid, of what is below 0 or above 1.
 */
export function addDistance(
  graph: GraphBuilder,
  { name, dtype }: Logits,
  last: 'Softmax' | 'Sigmoid',
): string {
  const one = graph.scalar(dtype, 1);
  const below = graph.op('Neg', [reduce(graph, 'ReduceMin', name)]);
  const sums = last === 'Softmax' ? reduce(graph, 'ReduceSum', name, [-1]) : name;
  const above = graph.op('Sub', [sums, one]);
  const off = last === 'Softmax' ? graph.op('Abs', [above]) : above;
  return graph.op('Max', [reduce(graph, 'ReduceMax', off), below], {}, 'distance');
}

/**
 * A warning where the outputs of the first batch are as near to probabilities as rounding brings them.
 * @param distance see {@link addDistance}
 * @param weight of the batch: few numbers are between 0 and 1 by chance
 */
export function probabilityWarning(
  { output, last }: { readonly output: string; readonly last: 'Softmax' | 'Sigmoid' },
  distance: number,
  weight: number,
): string | undefined {
  const isNear = last === 'Softmax' ? distance <= TOLERANCE : distance <= 0 && weight >= FEW;
  if (!isNear) return undefined;
  const found =
    last === 'Softmax'
      ? 'all rows of the first batch lie in 0..1 and sum to 1'
      : 'all of the first batch lies in 0..1';
  return `the output ${output} looks like probabilities (${found}), but no ${last} was found in front of it: the loss takes it for logits and is not the one that you mean. Choose the logits with \`modelOutput\`, or export the model without its last ${last}.`;
}

const FEW = 8;
