import type { GraphBuilder } from '../../graph/builder.js';
import type { DataTypeName } from '../../onnx/dtype.js';
import { dataTypeNumber } from '../../onnx/dtype.js';

export interface CrossEntropyOptions {
  /** Labels with this value do not count. */
  readonly ignoreIndex: number;
  readonly dtype: DataTypeName;
}

/**
 * `-mean over counted rows of log softmax(z)[label]`, with the softmax over the last axis: the mean
 * over all rows of the batch whose label is not `ignoreIndex`.
 * @param logits [.., C]
 * @param labels [..], integers
 * @returns a scalar
 */
export function crossEntropy(
  graph: GraphBuilder,
  logits: string,
  labels: string,
  { ignoreIndex, dtype }: CrossEntropyOptions,
): string {
  const logp = logSoftmax(graph, logits);
  const ignored = graph.op('Equal', [labels, graph.scalar('int64', ignoreIndex)]);
  const counted = graph.op('Cast', [graph.op('Not', [ignored])], {
    to: { int: dataTypeNumber(dtype) },
  });
  // An ignored label may lie outside the classes.
  const safe = graph.op('Where', [ignored, graph.scalar('int64', 0), labels]);
  const index = unsqueezeLast(graph, safe);
  const picked = graph.op('GatherElements', [logp, index], { axis: { int: -1 } });
  const taken = graph.op('Mul', [squeezeLast(graph, picked), counted]);
  const sum = graph.op('ReduceSum', [taken], { keepdims: { int: 0 } });
  const rows = graph.op('ReduceSum', [counted], { keepdims: { int: 0 } });
  // A batch without a counted row has loss 0, not 0/0.
  const atLeastOne = graph.op('Max', [rows, graph.scalar(dtype, 1)]);
  return graph.op('Neg', [graph.op('Div', [sum, atLeastOne])], {}, 'loss');
}

/** In the steps that every provider has a kernel for. */
export function logSoftmax(graph: GraphBuilder, logits: string): string {
  const over = { axes: { ints: [-1] } };
  const byInput = graph.opset >= 18;
  const max = byInput
    ? graph.op('ReduceMax', [logits, graph.integers([-1])])
    : graph.op('ReduceMax', [logits], over);
  const shifted = graph.op('Sub', [logits, max]);
  const exp = graph.op('Exp', [shifted]);
  const sum =
    graph.opset >= 13
      ? graph.op('ReduceSum', [exp, graph.integers([-1])])
      : graph.op('ReduceSum', [exp], over);
  return graph.op('Sub', [shifted, graph.op('Log', [sum])]);
}

function unsqueezeLast(graph: GraphBuilder, value: string): string {
  if (graph.opset >= 13) return graph.op('Unsqueeze', [value, graph.integers([-1])]);
  return graph.op('Unsqueeze', [value], { axes: { ints: [-1] } });
}

function squeezeLast(graph: GraphBuilder, value: string): string {
  if (graph.opset >= 13) return graph.op('Squeeze', [value, graph.integers([-1])]);
  return graph.op('Squeeze', [value], { axes: { ints: [-1] } });
}
