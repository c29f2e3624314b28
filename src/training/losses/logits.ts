/** From a model's output to what its loss is defined on. */
import type { GraphBuilder } from '../../graph/builder.js';
import type { NewNode } from '../../onnx/encode.js';
import type { Logits, ModelOutput } from './loss.js';
import { cast } from './operators.js';

/**
 * The value before a model's last Softmax or Sigmoid: losses contain it themselves, because log
 * softmax(z) is exact where log(softmax(z)) has lost small probabilities. An output without one is
 * taken as logits, and log-probabilities (LogSoftmax) are logits too: their log-softmax is what they
 * are.
 */
export function logitsOf(
  graph: GraphBuilder,
  output: ModelOutput,
  last: 'Softmax' | 'Sigmoid',
): ModelOutput {
  const producer = graph.nodes.find((node) => node.outputs[0] === output.name);
  if (producer?.opType === 'Identity') {
    return logitsOf(graph, { ...output, name: producer.inputs[0]! }, last);
  }
  if (producer?.opType !== last || (producer.domain ?? '') !== '') return output;
  if (last === 'Softmax' && !isOverLastAxis(graph, producer, output)) return output;
  return { ...output, name: producer.inputs[0]! };
}

function isOverLastAxis(graph: GraphBuilder, { attributes }: NewNode, { shape }: ModelOutput) {
  const axis = attributes?.axis && 'int' in attributes.axis ? attributes.axis.int : undefined;
  const set = axis ?? (graph.opset >= 13 ? -1 : 1);
  return set === -1 || (shape !== null && set === shape.length - 1);
}

/** Half precision is widened: sums over classes and batches need more than its 11 bits. */
export function widened(graph: GraphBuilder, output: ModelOutput): Logits {
  const { name, dtype, shape } = output;
  if (dtype === 'float32' || dtype === 'float64') return { name, dtype, shape };
  return { name: cast(graph, name, 'float32'), dtype: 'float32', shape };
}
