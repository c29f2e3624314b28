/**
 * Old operator forms in newer ones: training needs operators that old opsets do not have. Up to opset
 * 17 only a few operators changed in a way that a graph shows; all others are kept as they are.
 */
import { OnnxLoraError } from '../errors.js';
import type { AttributeValue, Integer, NewNode } from '../onnx/encode.js';
import { GraphBuilder } from './builder.js';
import { withRaisedBodies } from './raise-body.js';
import { raiseResize } from './raise-resize.js';
import type { ValueTypes } from './value-type.js';

/** The newest opset before the reductions take their axes as inputs. */
const TRAINING_OPSET = 17;

/**
 * The graph in opset 17, computing the same; the graph itself where its opset is not older. Values keep
 * their names.
 * @param types of the graph's values, see inferTypes
 * @throws OnnxLoraError `unsupported`, naming the node, for an operator that has no successor here
 */
export function raiseOpset(graph: GraphBuilder, types: ValueTypes): GraphBuilder {
  const from = graph.opset;
  if (from >= TRAINING_OPSET) return graph;
  const opsets = graph.opsets.map(({ domain, version }) => ({
    domain,
    version: domain === '' ? TRAINING_OPSET : version,
  }));
  const raised = new GraphBuilder(opsets, Math.max(8, graph.irVersion));
  raised.reserveAllOf(graph);
  for (const tensor of graph.initializers.values()) raised.addInitializer(tensor);
  raised.inputs.push(...graph.inputs);
  raised.outputs.push(...graph.outputs);
  for (const node of graph.nodes) addRaised(raised, node, from, types);
  return raised;
}

function addRaised(graph: GraphBuilder, node: NewNode, from: number, types: ValueTypes): void {
  const raised = withRaisedBodies(graph, node, {
    isOld: (one) => successorOf(one, from) !== undefined,
    // Nobody infers the types of what is in a body.
    add: (body, one) => addRaised(body, one, from, new Map()),
  });
  const successor = successorOf(raised, from);
  if (successor) successor.raise(graph, raised, types);
  else graph.add(raised);
}

/** Adds the new form of a node. */
type Raise = (graph: GraphBuilder, node: NewNode, types: ValueTypes) => void;

/** The way to raise an operator, and the opset that changed its form. */
const successors: Readonly<Record<string, { readonly since: number; readonly raise: Raise }>> = {
  BatchNormalization: { since: 14, raise: batchNormalization },
  Clip: { since: 11, raise: clip },
  Dropout: { since: 12, raise: without('ratio') },
  Hardmax: { since: 13, raise: softmax },
  LogSoftmax: { since: 13, raise: softmax },
  Pad: { since: 11, raise: pad },
  ReduceSum: { since: 13, raise: integersAsInput('axes') },
  Resize: { since: 11, raise: (graph, node) => raiseResize(graph, node, node.inputs[1]!) },
  RoiAlign: { since: 16, raise: roiAlign },
  Scan: { since: 9, raise: refuse },
  Scatter: { since: 11, raise: renamed('ScatterElements') },
  Slice: { since: 10, raise: slice },
  Softmax: { since: 13, raise: softmax },
  Split: { since: 13, raise: integersAsInput('split') },
  Squeeze: { since: 13, raise: integersAsInput('axes') },
  TopK: { since: 10, raise: topK },
  Unsqueeze: { since: 13, raise: integersAsInput('axes') },
  Upsample: { since: 10, raise: upsample },
};

/** The way to raise a node, where its form changed since. */
function successorOf({ opType, domain = '' }: NewNode, from: number) {
  const isKnown = domain === '' && Object.hasOwn(successors, opType);
  const successor = isKnown ? successors[opType] : undefined;
  return successor && from < successor.since ? successor : undefined;
}

/** The node with a list of integers as its second input instead of an attribute. */
function integersAsInput(attribute: string): Raise {
  return (graph, node) => {
    const values = ints(node, attribute);
    const inputs = values ? [node.inputs[0]!, graph.integers(values)] : node.inputs;
    graph.add({ ...node, inputs, attributes: omit(node, attribute) });
  };
}

function without(attribute: string): Raise {
  return (graph, node) => graph.add({ ...node, attributes: omit(node, attribute) });
}

function refuse(_: GraphBuilder, node: NewNode): never {
  throw new OnnxLoraError(
    'unsupported',
    `${node.name || node.outputs[0]}: training cannot raise this old form of ${node.opType} to opset ${TRAINING_OPSET}`,
    { node: node.name, hint: `Export the model with opset ${TRAINING_OPSET} or later.` },
  );
}

function renamed(opType: string): Raise {
  return (graph, node) => graph.add({ ...node, opType });
}

/** The statistics of training, which were outputs before, nobody computes in a model that runs. */
function batchNormalization(graph: GraphBuilder, node: NewNode): void {
  if (int(node, 'spatial') === 0) refuse(graph, node);
  const [output] = node.outputs;
  graph.add({ ...node, outputs: [output!], attributes: omit(node, 'spatial') });
}

/** Since opset 16, coordinates are by default those of pixels' centers. */
function roiAlign(graph: GraphBuilder, node: NewNode): void {
  const attributes = { ...node.attributes, coordinate_transformation_mode: OUTPUT_HALF_PIXEL };
  graph.add({ ...node, attributes });
}

const OUTPUT_HALF_PIXEL = { text: 'output_half_pixel' };

function topK(graph: GraphBuilder, node: NewNode): void {
  const inputs = [node.inputs[0]!, graph.integers([int(node, 'k') ?? 1])];
  graph.add({ ...node, inputs, attributes: omit(node, 'k') });
}

/** Before opset 9 the scales were an attribute. */
function upsample(graph: GraphBuilder, node: NewNode): void {
  const { scales } = node.attributes ?? {};
  const listed = scales && 'floats' in scales ? scales.floats : undefined;
  const given = listed && graph.constant('float32', [listed.length], listed);
  raiseResize(graph, node, given ?? node.inputs[1]!);
}

function clip(graph: GraphBuilder, node: NewNode, types: ValueTypes): void {
  const bound = (name: string) => {
    const value = float(node, name);
    return value === undefined ? '' : numberLike(graph, node, types, value);
  };
  const inputs = [node.inputs[0]!, bound('min'), bound('max')];
  graph.add({ ...node, inputs, attributes: omit(node, 'min', 'max') });
}

function pad(graph: GraphBuilder, node: NewNode, types: ValueTypes): void {
  const pads = graph.integers(ints(node, 'pads') ?? []);
  const value = numberLike(graph, node, types, float(node, 'value') ?? 0);
  const inputs = [node.inputs[0]!, pads, value];
  graph.add({ ...node, inputs, attributes: omit(node, 'pads', 'value') });
}

/** A number in the type of what the node reads, known or not. */
function numberLike(
  graph: GraphBuilder,
  { inputs, outputs }: NewNode,
  types: ValueTypes,
  value: number,
): string {
  const dtype = types.get(outputs[0]!)?.dtype;
  if (dtype !== undefined) return graph.scalar(dtype, value);
  return graph.op('CastLike', [graph.scalar('float32', value), inputs[0]!]);
}

function slice(graph: GraphBuilder, node: NewNode): void {
  const starts = ints(node, 'starts') ?? [];
  const axes = ints(node, 'axes') ?? starts.map((_, axis) => axis);
  const bounds = [starts, ints(node, 'ends') ?? [], axes].map((list) => graph.integers(list));
  const attributes = omit(node, 'starts', 'ends', 'axes');
  graph.add({ ...node, inputs: [node.inputs[0]!, ...bounds], attributes });
}

/** Before opset 13, all axes from `axis` on were one: over the last axis alone it is the same. */
function softmax(graph: GraphBuilder, node: NewNode, types: ValueTypes): void {
  const [input, output] = [node.inputs[0]!, node.outputs[0]!];
  const axis = int(node, 'axis') ?? 1;
  const last = { axis: { int: -1 } };
  if (axis === -1 || axis + 1 === types.get(input)?.shape?.length) {
    graph.add({ ...node, attributes: last });
    return;
  }
  const rows = graph.op('Flatten', [input], { axis: { int: axis } });
  const result = graph.op(node.opType, [rows], last);
  const inputs = [result, graph.op('Shape', [input])];
  graph.add({ name: node.name, opType: 'Reshape', inputs, outputs: [output] });
}

function omit({ attributes = {} }: NewNode, ...names: string[]): Record<string, AttributeValue> {
  return Object.fromEntries(Object.entries(attributes).filter(([name]) => !names.includes(name)));
}

function int({ attributes }: NewNode, name: string): number | undefined {
  const value = attributes?.[name];
  return value && 'int' in value ? Number(value.int) : undefined;
}

function ints({ attributes }: NewNode, name: string): readonly Integer[] | undefined {
  const value = attributes?.[name];
  return value && 'ints' in value ? value.ints : undefined;
}

function float({ attributes }: NewNode, name: string): number | undefined {
  const value = attributes?.[name];
  return value && 'float' in value ? value.float : undefined;
}
