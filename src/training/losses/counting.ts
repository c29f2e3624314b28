/** Which labels count, and what a mean over them is divided by. */
import { DEFAULT_IGNORE_INDEX } from '../../data/ignore-index.js';
import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { Logits } from './loss.js';
import { cast, unsqueeze } from './operators.js';

/**
 * @param labels int32 [..]
 * @returns `index`: the labels with class 0 for ignored ones, int32 [.., 1]; `counted`: 1, and 0 for
 * ignored ones, [.., 1]
 * @throws OnnxLoraError `invalid-argument` where no label can be `ignoreIndex`
 */
export function countedLabels(
  graph: GraphBuilder,
  labels: string,
  dtype: Logits['dtype'],
  ignoreIndex = DEFAULT_IGNORE_INDEX,
) {
  if (ignoreIndex !== (ignoreIndex | 0)) {
    const message = `the ignored label has to be an integer of 32 bits, found ${ignoreIndex}`;
    throw new OnnxLoraError('invalid-argument', message);
  }
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
