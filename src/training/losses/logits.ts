/** From a model's output to what its loss is defined on. */
import { OnnxLoraError } from '../../errors.js';
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
  if (last === 'Softmax' && output.shape === null) refuseFlattened(graph, producer, output);
  if (producer?.opType !== last || (producer.domain ?? '') !== '') return output;
  if (last === 'Softmax' && !isOverLastAxis(graph, producer, output)) return output;
  return { ...output, name: producer.inputs[0]! };
}

/**
 * A Softmax over all axes from one on is written with a Flatten before and a Reshape behind it where the
 * number of axes is not known. It may well be one over classes: its probabilities must not pass for
 * logits.
 */
function refuseFlattened(graph: GraphBuilder, producer: NewNode | undefined, output: ModelOutput) {
  const before = graph.nodes.find((node) => node.outputs[0] === producer?.inputs[0]);
  const isFlattened = producer?.opType === 'Reshape' && before?.opType === 'Softmax';
  if (!isFlattened) return;
  throw new OnnxLoraError(
    'unsupported',
    `the output ${output.name} comes from a Softmax over an unknown number of axes, expected one over the last axis, or logits`,
    {
      node: producer.name,
      hint: 'Export the model with fixed or named input sizes, or choose the logits with --model-output.',
    },
  );
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
