/** Finds the value that a loss is defined on, starting from a model's output. */

import type { ModelOutput } from '../../data/needs.js';
import { OnnxLoraError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { ValueTypes } from '../../graph/value-type.js';
import type { NewNode } from '../../onnx/encode.js';
import type { Dim } from '../../onnx/model.js';
import type { Logits } from './loss.js';
import { cast } from './operators.js';
import { Producers } from './producers.js';
import { beforeSigmoid } from './sigmoid-parts.js';
import { beforeSoftmax } from './softmax-parts.js';

/**
 * The value before a model's last Softmax or Sigmoid, written as the operator or in parts: losses contain
 * it themselves, because log softmax(z) is exact where log(softmax(z)) has lost small probabilities. What
 * comes after it and only moves numbers (reshapes, transposes, casts) is done to that value. An output
 * without one is taken as logits, and log-probabilities are logits too: their log-softmax is what they are.
 * @param types of the graph's values, as far as they are known
 */
export function logitsOf(
  graph: GraphBuilder,
  output: ModelOutput,
  last: 'Softmax' | 'Sigmoid',
  types: ValueTypes = new Map(),
): ModelOutput {
  if (last === 'Softmax' && output.shape === null) refuseFlattened(graph, output);
  const { name, dtype, shape } = output;
  const known = new Map([...types, [name, { dtype, shape }] as const]);
  const producers = new Producers(graph, known);
  const moves: NewNode[] = [];
  for (let place: Place | undefined = { value: name, axis: -1 }; place; ) {
    const found = beforeLast(graph, producers, place, last, dtype);
    if (found !== undefined) return movedAgain(graph, producers, found, moves, output);
    const node = producers.of(place.value, ...Object.keys(MOVING));
    place = node && MOVING[node.opType]!(producers, node, place.axis);
    if (node) moves.unshift(node);
  }
  return output;
}

/** A value on the way from the output back, and the axis of the classes in it, counted from the end. */
interface Place {
  readonly value: string;
  /** undefined where it is not known any more. */
  readonly axis: number | undefined;
}

function beforeLast(
  graph: GraphBuilder,
  producers: Producers,
  { value, axis }: Place,
  last: 'Softmax' | 'Sigmoid',
  dtype: ModelOutput['dtype'],
): string | undefined {
  if (last === 'Sigmoid') {
    return beforeSigmoid(graph, producers, value, producers.type(value)?.dtype ?? dtype);
  }
  if (axis === undefined) return undefined;
  const isOverAxis = (node: NewNode) => isOver(graph, producers, node, axis);
  return beforeSoftmax(producers, value, axis, isOverAxis);
}

/** Nodes that move numbers and leave them what they are: the place before one. */
const MOVING: Readonly<
  Record<string, (producers: Producers, node: NewNode, axis: number | undefined) => Place>
> = {
  Identity: (_, { inputs }, axis) => ({ value: inputs[0]!, axis }),
  Cast: (_, { inputs }, axis) => ({ value: inputs[0]!, axis }),
  Dropout: (_, { inputs }, axis) => ({ value: inputs[0]!, axis }),
  // log softmax(z): later values have lost what is small.
  Log: (_, { inputs }, axis) => ({ value: inputs[0]!, axis }),
  Transpose: (producers, { inputs, attributes }, axis) => {
    const perm = attributes?.perm;
    const rank = producers.shape(inputs[0]!)?.length;
    const axes = perm && 'ints' in perm ? perm.ints.map(Number) : undefined;
    const size = axes?.length ?? rank;
    if (axis === undefined || size === undefined) return { value: inputs[0]!, axis: undefined };
    return { value: inputs[0]!, axis: (axes?.at(axis) ?? -1 - axis - size) - size };
  },
  Reshape: reshaped,
  Flatten: reshaped,
  Squeeze: reshaped,
  Unsqueeze: reshaped,
};

function reshaped(producers: Producers, { inputs, outputs }: NewNode, axis: number | undefined) {
  const [from, to] = [producers.shape(inputs[0]!), producers.shape(outputs[0]!)];
  const place = axis === undefined || !from || !to ? undefined : sameAxis(from, to, axis);
  return { value: inputs[0]!, axis: place };
}

/** The axis of `from` that a reshape to `to` leaves as the given one: same size, same stride. */
function sameAxis(from: readonly Dim[], to: readonly Dim[], axis: number): number | undefined {
  const [size, stride] = [to.at(axis), strideOf(to, axis)];
  if (size === undefined || size === null || stride === undefined) return undefined;
  const axes = from.map((_, i) => i - from.length);
  return axes.find((i) => from.at(i) === size && strideOf(from, i) === stride);
}

/** The stride of an axis in elements; undefined where sizes are open. */
function strideOf(shape: readonly Dim[], axis: number): number | undefined {
  const rest = axis === -1 ? [] : shape.slice(axis + 1);
  if (rest.some((dim) => typeof dim !== 'number')) return undefined;
  return (rest as number[]).reduce((product, dim) => product * dim, 1);
}

/** Does to the logits what was done to the probabilities. */
function movedAgain(
  graph: GraphBuilder,
  producers: Producers,
  logits: string,
  moves: readonly NewNode[],
  output: ModelOutput,
): ModelOutput {
  const dtype = producers.type(logits)?.dtype;
  let value = logits;
  for (const node of moves) {
    const isNeeded = node.opType === 'Cast' ? dtype === undefined : !LEFT_OUT.has(node.opType);
    if (isNeeded) value = again(graph, node, value);
  }
  return { ...output, name: value, dtype: dtype ?? output.dtype };
}

// Losses widen their logits themselves.
const LEFT_OUT = new Set(['Identity', 'Dropout', 'Log']);

function again(graph: GraphBuilder, node: NewNode, value: string): string {
  const name = graph.fresh(`logits/${node.opType.toLowerCase()}`);
  graph.add({ ...node, name, inputs: [value, ...node.inputs.slice(1)], outputs: [name] });
  return name;
}

/**
 * A Softmax over all axes from one on is written with a Flatten before and a Reshape after it where the
 * number of axes is not known. It may well be one over classes: its probabilities must not pass for
 * logits.
 */
function refuseFlattened(graph: GraphBuilder, output: ModelOutput): void {
  const producers = new Producers(graph);
  const producer = producers.of(producers.plain(output.name), 'Reshape');
  if (!producer || !producers.of(producer.inputs[0], 'Softmax')) return;
  throw new OnnxLoraError(
    'unsupported',
    `the output ${output.name} comes from a Softmax over an unknown number of axes, expected one over the last axis, or logits`,
    {
      node: producer.name,
      hint: 'Export the model with fixed or named input sizes, or choose the logits with `modelOutput`.',
    },
  );
}

/** Whether a Softmax or LogSoftmax is over one axis, counted from the end, and that alone. */
function isOver(
  graph: GraphBuilder,
  producers: Producers,
  { attributes, inputs, outputs }: NewNode,
  axis: number,
): boolean {
  const given =
    attributes?.axis && 'int' in attributes.axis ? Number(attributes.axis.int) : undefined;
  const set = given ?? (graph.opset >= 13 ? -1 : 1);
  const shape = producers.shape(outputs[0]!) ?? producers.shape(inputs[0]!);
  // Before, all axes from it on were one.
  if (graph.opset < 13 && axis !== -1) return false;
  return producers.fromEnd(set, shape) === axis;
}

// The output of a linear operator is not probabilities.
const LINEAR = new Set(['MatMul', 'Gemm', 'Conv', 'FusedMatMul', 'FusedGemm', 'MatMulNBits']);

/**
 * Whether an output may hold probabilities for all that the graph shows: it ends in something else than a
 * linear layer, or a sum of them.
 */
export function mayBeProbabilities(graph: GraphBuilder, { name }: ModelOutput): boolean {
  const producers = new Producers(graph);
  const known = new Map<string, boolean>();
  const isLinear = (value: string): boolean => {
    const linear = known.get(value) ?? isLinearNode(producers.any(value), value);
    known.set(value, linear);
    return linear;
  };
  const isLinearNode = (node: NewNode | undefined, value: string): boolean => {
    if (!node) return producers.isConstant(value);
    if (LINEAR.has(node.opType)) return true;
    if (SUMS.has(node.opType)) return node.inputs.every(isLinear);
    return node.opType in MOVING && node.opType !== 'Log' && isLinear(node.inputs[0]!);
  };
  return !isLinear(name);
}

const SUMS = new Set(['Add', 'Sum']);

/** Half precision is widened: sums over classes and batches need more than its 11 bits. */
export function widened(graph: GraphBuilder, output: ModelOutput): Logits {
  const { name, dtype, shape } = output;
  if (dtype === 'float32' || dtype === 'float64') return { name, dtype, shape };
  return { name: cast(graph, name, 'float32'), dtype: 'float32', shape };
}
