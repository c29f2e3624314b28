/** A model's main graph as a GraphBuilder: the start of every graph that is built from a model. */
import { OnnxLoraError } from '../errors.js';
import { type DataTypeName, findDataType } from '../onnx/dtype.js';
import type { AttributeValue, NewNode } from '../onnx/encode.js';
import type { ValueInfo } from '../onnx/model.js';
import { type Attribute, allGraphs, type Graph, type Model, type Tensor } from '../onnx/model.js';
import { dtypeOf, type TensorReader } from '../onnx/tensor.js';
import { GraphBuilder, type ValueSpec } from './builder.js';
import { type InlinedAttribute, type InlinedNode, inline } from './inline.js';

/**
 * Copies the structure; weights stay in their files. Constant nodes become initializers, functions and
 * Ifs with a constant condition their nodes.
 * @throws OnnxLoraError `unsupported` for what has no place in a builder (sparse tensors)
 */
export function loadGraph(model: Model, reader: TensorReader): GraphBuilder {
  const { graph } = model;
  const builder = new GraphBuilder(model.opsets, Math.max(4, model.irVersion));
  for (const one of allGraphs(graph)) for (const name of namesOf(one)) builder.reserve(name);
  const { nodes, initializers } = inline(model, reader);
  for (const { name, tensor } of initializers) addTensor(builder, model, reader, tensor, name);
  for (const input of graph.inputs) {
    if (!graph.initializers.has(input.name)) builder.inputs.push(spec(input));
  }
  for (const output of graph.outputs) builder.outputs.push(spec(output));
  for (const node of nodes) {
    if (!addConstant(builder, model, reader, node)) builder.add(loadNode(node));
  }
  return builder;
}

function* namesOf(graph: Graph): Generator<string> {
  for (const { name } of graph.inputs) yield name;
  for (const node of graph.nodes) yield* node.outputs;
}

function addTensor(
  builder: GraphBuilder,
  model: Model,
  reader: TensorReader,
  tensor: Tensor,
  name: string,
): void {
  const dtype = dtypeOf(tensor, model);
  const data = reader.span(tensor) ?? reader.bytes(tensor);
  builder.addInitializer({ name, dtype, dims: tensor.dims, data });
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
  attribute: Attribute,
): void {
  const { f, i, floats, ints } = attribute;
  const make = (dtype: DataTypeName, dims: number[], data: Uint8Array) =>
    builder.addInitializer({ name, dtype, dims, data });
  const float32 = (values: readonly number[]) => new Uint8Array(Float32Array.from(values).buffer);
  const int64 = (values: readonly number[]) =>
    new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  if (attribute.name === 'value_float') make('float32', [], float32([f ?? 0]));
  else if (attribute.name === 'value_floats') make('float32', [floats.length], float32(floats));
  else if (attribute.name === 'value_int') make('int64', [], int64([i ?? 0]));
  else if (attribute.name === 'value_ints') make('int64', [ints.length], int64(ints));
  else {
    throw new OnnxLoraError(
      'unsupported',
      `${node.name || name}: a Constant with ${attribute.name} cannot be trained through`,
      { node: node.name },
    );
  }
}

function loadNode(node: InlinedNode): NewNode {
  const attributes = [...node.attributes].map(([name, attribute]) => [
    name,
    attributeValue(attribute),
  ]);
  const { name, opType, domain, inputs, outputs } = node;
  return { name, opType, domain, inputs, outputs, attributes: Object.fromEntries(attributes) };
}

function attributeValue(attribute: InlinedAttribute): AttributeValue {
  const { i, f, s, ints, floats, captures } = attribute;
  if (i !== undefined) return { int: i };
  if (f !== undefined) return { float: f };
  if (s !== undefined) return { text: s };
  if (ints.length > 0) return { ints };
  if (floats.length > 0) return { floats };
  return { raw: attribute.encoded(), captures };
}

function spec({ name, dataType, shape }: ValueInfo): ValueSpec {
  return { name, dtype: findDataType(dataType), shape };
}
