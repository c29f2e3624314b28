/** Which labels count, and what a mean over them is divided by. */
import type { GraphBuilder } from '../../graph/builder.js';
import type { Logits } from './loss.js';
import { cast, unsqueeze } from './operators.js';

/**
 * @param labels int32 [..]
 * @returns `index`: the labels with class 0 for ignored ones, int32 [.., 1]; `counted`: 1, and 0 for
 * ignored ones, [.., 1]
 */
export function countedLabels(
  graph: GraphBuilder,
  labels: string,
  dtype: Logits['dtype'],
  ignoreIndex: number,
) {
  const column = unsqueeze(graph, labels, -1);
  const ignored = graph.op('Equal', [column, graph.scalar('int32', ignoreIndex)]);
  return {
    // An ignored label may lie outside the classes.
    index: graph.op('Where', [ignored, graph.scalar('int32', 0), column]),
    counted: cast(graph, graph.op('Not', [ignored]), dtype),
  };
}

// A batch in which nothing counts has loss 0, not 0/0.
const SMALLEST_WEIGHT = 1e-30;

/** The divisor that makes a sum the mean over `weight` elements. */
export function divisorOf(graph: GraphBuilder, weight: string, dtype: Logits['dtype']): string {
  return graph.op('Max', [weight, graph.scalar(dtype, SMALLEST_WEIGHT)]);
}
