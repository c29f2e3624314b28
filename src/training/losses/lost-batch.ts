/** Outputs that lose the axis of samples at their end: [batch·length, classes], or a batch of 1 squeezed away. */
import type { ModelOutput } from '../../data/needs.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { ValueTypes } from '../../graph/value-type.js';
import type { NewNode } from '../../onnx/encode.js';
import type { Dim } from '../../onnx/model.js';
import { Producers } from './producers.js';

// They leave rows where they are.
const ROW_BY_ROW = ['Identity', 'Cast', 'Dropout', 'Softmax', 'LogSoftmax', 'Log', 'Sigmoid'];

/**
 * The output with the axes that a last Reshape, Flatten or Squeeze takes from it; undefined where none of them takes
 * the axis of samples.
 * @param types of the graph's values, as far as they are known
 * @param batch the first axis of the inputs
 */
export function withLostBatch(
  graph: GraphBuilder,
  output: ModelOutput,
  types: ValueTypes,
  batch: Dim,
): ModelOutput | undefined {
  const producers = new Producers(graph, types);
  const node = lastMove(producers, output.name);
  const whole = node && producers.shape(node.inputs[0]!);
  if (!whole || !output.shape || whole[0] !== batch || whole.length < 2) return undefined;
  const isLost =
    node.opType === 'Squeeze' ? squeezesFirst(producers, node) : flattens(whole, output.shape);
  if (!isLost) return undefined;
  const shape = graph.op('Shape', [node.inputs[0]!]);
  return { ...output, name: graph.op('Reshape', [output.name, shape]), shape: whole };
}

function lastMove(producers: Producers, output: string): NewNode | undefined {
  for (let value = output; ; ) {
    const node = producers.of(value, 'Reshape', 'Flatten', 'Squeeze', ...ROW_BY_ROW);
    if (!node || !ROW_BY_ROW.includes(node.opType)) return node;
    value = node.inputs[0]!;
  }
}

/** [batch, length, .., classes] -> [rows, classes]. Axes of size 1 may be no positions at all. */
function flattens(whole: readonly Dim[], shape: readonly Dim[]): boolean {
  const positions = whole.slice(1, -1);
  const areSure = positions.length > 0 && positions.every((dim) => dim !== null && dim !== 1);
  return areSure && shape.length === 2 && shape[1] === whole.at(-1);
}

function squeezesFirst(producers: Producers, { inputs, attributes }: NewNode): boolean {
  const given = attributes?.axes;
  const axes = given && 'ints' in given ? given.ints.map(Number) : producers.constant(inputs[1]);
  const rank = producers.shape(inputs[0]!)?.length;
  return axes?.length === 1 && (axes[0] === 0 || axes[0] === -(rank ?? 0));
}
