/** A model's main graph as a GraphBuilder: the start of every graph that is built from a model. */
import { OnnxLoraError } from '../errors.js';
import {
  type DataTypeName,
  findDataType,
  fromFloat64,
  fromIntegers,
  isConvertible,
} from '../onnx/dtype.js';
import type { AttributeValue, Integer, NewNode, NewTensor } from '../onnx/encode.js';
import { AttributeField } from '../onnx/fields.js';
import { MemorySource } from '../onnx/memory-source.js';
import type { ValueInfo } from '../onnx/model.js';
import { allGraphs, type Graph, type Model, type Tensor } from '../onnx/model.js';
import { dtypeOf, type TensorReader } from '../onnx/tensor.js';
import { type Field, fieldsOf, readBigInts, readFloats } from '../onnx/wire.js';
import { addZeroBiases } from './attention-bias.js';
import { GraphBuilder, type ValueSpec } from './builder.js';
import { writeOutHeadNorms } from './head-norms.js';
import { type InlinedAttribute, type InlinedNode, inline, type NodePlaces } from './inline.js';
import { isConvertedAtOnce, wideAttribute, widening, wideType } from './widen.js';

/** The value of a graph input in every run. */
export interface FixedInput {
  /** Its element type. */
  readonly dtype: DataTypeName;
  /** Its shape. */
  readonly dims: readonly number[];
  /** The number that all its elements are. */
  readonly value: number;
}

/**
 * Copies the structure; weights stay in their files. Constant nodes become initializers, functions and
 * Ifs with a constant condition their nodes. bfloat16 becomes float32, and norms of heads inside attention nodes
 * of their own: not every runtime has kernels for these.
 * @param fixed inputs to replace by constants
 * @throws OnnxLoraError `unsupported` for what has no place in a builder (sparse tensors)
 */
export function loadGraph(
  model: Model,
  reader: TensorReader,
  fixed?: ReadonlyMap<string, FixedInput>,
): GraphBuilder {
  return loadPlaced(model, reader, fixed).graph;
}

/** As {@link loadGraph}, with what became of each node. */
export function loadPlaced(
  model: Model,
  reader: TensorReader,
  fixed: ReadonlyMap<string, FixedInput> = new Map(),
): { readonly graph: GraphBuilder; readonly places: NodePlaces } {
  const { graph } = model;
  const builder = new GraphBuilder(model.opsets, Math.max(4, model.irVersion));
  for (const one of allGraphs(graph)) for (const name of namesOf(one)) builder.reserve(name);
  const { nodes, initializers, places } = inline(model, reader, fixed);
  for (const [name, { dtype, dims, value }] of fixed) {
    const values = Float64Array.of(value);
    const data = isConvertible(dtype) ? fromFloat64(dtype, values) : fromIntegers(dtype, [value]);
    builder.addInitializer({ name, dtype, dims, data });
  }
  for (const { name, tensor } of initializers) addTensor(builder, model, reader, tensor, name);
  for (const input of graph.inputs) {
    const isFree = !graph.initializers.has(input.name) && !fixed.has(input.name);
    if (isFree) builder.inputs.push(spec(input));
  }
  for (const output of graph.outputs) builder.outputs.push(spec(output));
  for (const node of nodes) {
    if (!addConstant(builder, model, reader, node)) builder.add(loadNode(node));
  }
  writeOutHeadNorms(builder);
  addZeroBiases(builder);
  return { graph: builder, places };
}

function* namesOf(graph: Graph): Generator<string> {
  yield* graph.initializers.keys();
  for (const { name } of graph.inputs) yield name;
  for (const node of graph.nodes) {
    yield node.name;
    yield* node.outputs;
  }
}

function addTensor(
  builder: GraphBuilder,
  model: Model,
  reader: TensorReader,
  tensor: Tensor,
  name: string,
): void {
  const dtype = dtypeOf(tensor, model);
  const { dims } = tensor;
  if (dtype === 'bfloat16') addWide(builder, reader, tensor, name);
  else builder.addInitializer({ name, dtype, dims, data: dataOf(reader, tensor) });
}

function addWide(builder: GraphBuilder, reader: TensorReader, tensor: Tensor, name: string): void {
  const { dims } = tensor;
  if (isConvertedAtOnce(dims)) {
    const data = new Uint8Array(reader.float32(tensor).buffer);
    builder.addInitializer({ name, dtype: 'float32', dims, data });
    return;
  }
  const narrow = builder.fresh(`${name}/bfloat16`);
  builder.addInitializer({ name: narrow, dtype: 'bfloat16', dims, data: dataOf(reader, tensor) });
  builder.add(widening(narrow, name));
}

function dataOf(reader: TensorReader, tensor: Tensor): NewTensor['data'] {
  return reader.span(tensor) ?? reader.bytes(tensor);
}

/** Whether the node is a Constant, which becomes an initializer. */
function addConstant(
  builder: GraphBuilder,
  model: Model,
  reader: TensorReader,
  node: InlinedNode,
): boolean {
  if (node.opType !== 'Constant' || node.domain !== '') return false;
  const name = node.outputs[0]!;
  const [attribute] = node.attributes.values();
  if (attribute?.tensor) addTensor(builder, model, reader, attribute.tensor, name);
  else if (attribute) addPlain(builder, node, name, attribute);
  return true;
}

function addPlain(
  builder: GraphBuilder,
  node: InlinedNode,
  name: string,
  attribute: InlinedAttribute,
): void {
  const make = (dtype: DataTypeName, dims: number[], data: Uint8Array) =>
    builder.addInitializer({ name, dtype, dims, data });
  const float32 = (values: readonly number[]) => new Uint8Array(Float32Array.from(values).buffer);
  if (attribute.name === 'value_float') make('float32', [], float32([attribute.f ?? 0]));
  else if (attribute.name === 'value_floats') {
    const floats = listed(attribute, AttributeField.floats, readFloats);
    make('float32', [floats.length], float32(floats));
  } else if (attribute.name === 'value_int') {
    make('int64', [], fromIntegers('int64', [exactInt(attribute) ?? 0]));
  } else if (attribute.name === 'value_ints') {
    const ints = listed(attribute, AttributeField.ints, readBigInts);
    make('int64', [ints.length], fromIntegers('int64', ints));
  } else {
    throw new OnnxLoraError(
      'unsupported',
      `${node.name || name}: a Constant with ${attribute.name} cannot be trained through`,
      { node: node.name },
    );
  }
}

// Of MatMulNBits, which may round what it multiplies to 8 bits then, and need not. What is trained and
// measured is the function of the weights, not of one kernel: in float16 that one is wrong on CPUs.
const ROUNDS_ACTIVATIONS = 4;

function loadNode(node: InlinedNode): NewNode {
  const attributes = [...node.attributes]
    .filter(([name, { i }]) => !(name === 'accuracy_level' && i === ROUNDS_ACTIVATIONS))
    .map(([name, attribute]) => [name, wideAttribute(name, attributeValue(attribute))]);
  const { name, opType, domain, inputs, outputs } = node;
  return { name, opType, domain, inputs, outputs, attributes: Object.fromEntries(attributes) };
}

function attributeValue(attribute: InlinedAttribute): AttributeValue {
  const { f, s, ints, floats, captures } = attribute;
  const i = exactInt(attribute);
  if (i !== undefined) return { int: i };
  if (f !== undefined) return { float: f };
  if (s !== undefined) return { text: s };
  if (ints.length > 0) return { ints: exactInts(attribute) };
  if (floats.length > 0) return { floats };
  return { raw: attribute.encoded(), captures };
}

/** The integer of an attribute; what a Number has rounded is read again. */
function exactInt(attribute: InlinedAttribute): Integer | undefined {
  const { i } = attribute;
  if (i === undefined || Number.isSafeInteger(i)) return i;
  return listed(attribute, AttributeField.i, readBigInts).at(-1);
}

function exactInts(attribute: InlinedAttribute): readonly Integer[] {
  const { ints } = attribute;
  if (ints.every((value) => Number.isSafeInteger(value))) return ints;
  return listed(attribute, AttributeField.ints, readBigInts);
}

/** All values of a repeated field of an attribute, however many. */
function listed<T>(
  attribute: InlinedAttribute,
  fieldNumber: number,
  read: (source: MemorySource, field: Field) => T[],
): T[] {
  const source = new MemorySource(attribute.encoded());
  const fields = [...fieldsOf(source, { start: 0, end: source.size })];
  return fields.filter(({ number }) => number === fieldNumber).flatMap((f) => read(source, f));
}

function spec({ name, dataType, shape }: ValueInfo): ValueSpec {
  return { name, dtype: wideType(findDataType(dataType)), shape };
}
