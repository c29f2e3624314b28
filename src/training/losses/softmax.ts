import type { GraphBuilder } from '../../graph/builder.js';
import { reduce } from './operators.js';

/**
 * softmax(z) and log Σ exp(z) [.., 1] over the last axis, in operators that every provider has a
 * kernel for, and in one pass that writes. The largest probability is exp(0) / Σ exp(z - max z),
 * hence log Σ exp(z) = max z - log max softmax(z), which neither overflows nor takes the log of 0.
 */
export function softmax(graph: GraphBuilder, logits: string) {
  const probabilities = graph.op('Softmax', [logits], { axis: { int: -1 } });
  const largest = reduce(graph, 'ReduceMax', probabilities, [-1]);
  const logSumExp = graph.op('Sub', [
    reduce(graph, 'ReduceMax', logits, [-1]),
    graph.op('Log', [largest]),
  ]);
  return { probabilities, logSumExp };
}
