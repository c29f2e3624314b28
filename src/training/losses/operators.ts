/** Operators whose attributes became inputs in later opsets, in the opset of the graph. */
import type { GraphBuilder } from '../../graph/builder.js';
import { type DataTypeName, dataTypeNumber } from '../../onnx/dtype.js';

/** A reduction over `axes`, which stay with size 1; over all axes, and to a scalar, without them. */
export function reduce(
  graph: GraphBuilder,
  opType: string,
  value: string,
  axes?: readonly number[],
): string {
  const keepdims = { int: axes ? 1 : 0 };
  if (!axes) return graph.op(opType, [value], { keepdims });
  const asInput = graph.opset >= (opType === 'ReduceSum' ? 13 : 18);
  if (asInput) return graph.op(opType, [value, graph.integers(axes)], { keepdims });
  return graph.op(opType, [value], { keepdims, axes: { ints: axes } });
}

/** The sum of scalars. */
export function sumOf(graph: GraphBuilder, values: readonly string[]): string {
  return values.reduce((a, b) => graph.op('Add', [a, b]));
}

/** A new axis of size 1. */
export function unsqueeze(graph: GraphBuilder, value: string, axis: number): string {
  return withAxis(graph, 'Unsqueeze', value, axis);
}

/** Drops an axis of size 1. */
export function squeeze(graph: GraphBuilder, value: string, axis: number): string {
  return withAxis(graph, 'Squeeze', value, axis);
}

function withAxis(graph: GraphBuilder, opType: string, value: string, axis: number): string {
  if (graph.opset >= 13) return graph.op(opType, [value, graph.integers([axis])]);
  return graph.op(opType, [value], { axes: { ints: [axis] } });
}

export function cast(graph: GraphBuilder, value: string, dtype: DataTypeName): string {
  return graph.op('Cast', [value], { to: { int: dataTypeNumber(dtype) } });
}

/** `value[start:end:step]` along one axis. */
export function slice(
  graph: GraphBuilder,
  value: string,
  axis: number,
  start: number,
  end: number,
  step = 1,
): string {
  const numbers = [start, end, axis, step].map((n) => graph.integers([n]));
  return graph.op('Slice', [value, ...numbers]);
}

/** The end of any axis, and the end of one that is walked backwards. */
export const END = 2 ** 31 - 1;
export const BEFORE_FIRST = -(2 ** 31);

/** The size of one axis, an int64 scalar. */
export function sizeOf(graph: GraphBuilder, value: string, axis: number): string {
  const index = graph.scalar('int64', axis);
  return graph.op('Gather', [graph.op('Shape', [value]), index], { axis: { int: 0 } });
}
