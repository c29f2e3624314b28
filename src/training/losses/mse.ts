import { regression } from '../metrics/regression.js';
import { elementsOf, targetLike } from './elementwise.js';
import type { Loss } from './loss.js';
import { reduce } from './operators.js';

/** The mean of (z - target)² over all elements; its gradient is 2·(z - target) / elements. */
export const mse = {
  name: 'mse',
  summary: 'numbers',
  labels: 'numbers',
  measures: 'R²',
  metric: regression,
  options: {},
  trainOptions: {},
  takes: 'any shape with a batch axis',
  ranks: [1, Number.POSITIVE_INFINITY],
  add(graph, logits, addInput) {
    const target = targetLike(graph, logits, addInput, 'target', 'float32');
    const weight = elementsOf(graph, logits);
    const error = graph.op('Sub', [logits.name, target]);
    const squares = reduce(graph, 'ReduceSum', graph.op('Mul', [error, error]));
    const loss = graph.op('Div', [squares, weight], {}, 'loss');
    const factor = graph.op('Div', [graph.scalar(logits.dtype, 2), weight]);
    const gradient = graph.op('Mul', [error, factor], {}, 'grad/loss');
    return { loss, weight, gradient };
  },
} as const satisfies Loss;
