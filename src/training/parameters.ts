/**
 * The trainable tensors as stretches of one flat vector: what the optimizer sees is one tensor,
 * however many adapters there are.
 */
import type { GraphBuilder } from '../graph/builder.js';
import { type DataTypeName, dataTypeNumber } from '../onnx/dtype.js';
import type { NewNode } from '../onnx/encode.js';
import { elementCount } from '../onnx/model.js';

/** One trainable tensor. */
export interface Parameter {
  /** The value's name in the graph. */
  readonly name: string;
  /** Shape of the tensor. */
  readonly shape: readonly number[];
  /** The type that the graph computes with; the flat vector is float32. */
  readonly dtype: DataTypeName;
  /** First element in the flat vector. */
  readonly offset: number;
  /** Number of elements. */
  readonly length: number;
}

/** Lays tensors out one after the other. */
export function layOut(
  tensors: readonly Pick<Parameter, 'name' | 'shape' | 'dtype'>[],
): Parameter[] {
  let offset = 0;
  return tensors.map((tensor) => {
    const length = elementCount(tensor.shape);
    offset += length;
    return { ...tensor, offset: offset - length, length };
  });
}

/** Elements of the flat vector. */
export function sizeOf(parameters: readonly Parameter[]): number {
  return parameters.reduce((sum, { length }) => sum + length, 0);
}

/** Lets the graph read its trainable tensors from the vector `flat` instead of from initializers. */
export function readFromVector(
  graph: GraphBuilder,
  flat: string,
  parameters: readonly Parameter[],
): void {
  for (const { name } of parameters) removeConstant(graph, name);
  const start = graph.nodes.length;
  for (const { name, shape, dtype, offset, length } of parameters) {
    const part = sliceOf(graph, flat, offset, offset + length);
    const wide = dtype !== 'float32';
    const shaped = wide ? graph.fresh(`${name}/float32`) : name;
    graph.add(node('Reshape', [part, graph.integers(shape)], shaped));
    if (wide) graph.add({ ...node('Cast', [shaped], name), attributes: castTo(dtype) });
  }
  const added = graph.nodes.splice(start);
  graph.nodes.unshift(...added);
}

/** A constant, be it one that a node makes of another. */
function removeConstant(graph: GraphBuilder, name: string): void {
  if (graph.initializers.delete(name)) return;
  const place = graph.nodes.findIndex(({ outputs }) => outputs.includes(name));
  graph.nodes.splice(place, 1);
}

/** The gradients of all parameters as one vector, in their order. */
export function flatGradient(
  graph: GraphBuilder,
  parameters: readonly Parameter[],
  gradients: ReadonlyMap<string, string>,
): string {
  const parts = parameters.map(({ name, dtype }) => {
    const flat = graph.op('Reshape', [gradients.get(name)!, graph.integers([-1])], {}, 'gradient');
    return dtype === 'float32' ? flat : graph.op('Cast', [flat], castTo('float32'));
  });
  return parts.length === 1 ? parts[0]! : graph.op('Concat', parts, { axis: { int: 0 } }, 'grad');
}

/** Elements `start` to `end` of a vector. */
function sliceOf(graph: GraphBuilder, vector: string, start: number, end: number): string {
  if (graph.opset < 10) {
    const attributes = { starts: { ints: [start] }, ends: { ints: [end] }, axes: { ints: [0] } };
    return graph.op('Slice', [vector], attributes, 'theta/part');
  }
  const range = [start, end, 0].map((value) => graph.integers([value]));
  return graph.op('Slice', [vector, ...range], {}, 'theta/part');
}

function castTo(dtype: DataTypeName) {
  return { to: { int: dataTypeNumber(dtype) } };
}

function node(opType: string, inputs: readonly string[], output: string): NewNode {
  return { name: `read/${output}`, opType, inputs, outputs: [output] };
}
