/** Bodies of Loop, Scan and If in a newer opset: they have no opset of their own. */
import type onnxProto from 'onnx-proto';
import type { AttributeValue, Integer, NewNode } from '../onnx/encode.js';
import { onnx } from '../onnx/proto.js';
import { encodeString } from '../onnx/wire.js';
import { GraphBuilder } from './builder.js';

type BodyProto = onnxProto.onnx.IGraphProto;
type AttributeProto = onnxProto.onnx.IAttributeProto;

/** Looks at the nodes of bodies, and raises them. */
export interface BodyRules {
  /** Whether the form of a node changed. */
  isOld(node: NewNode): boolean;
  /** Adds the new form of a node, which may have bodies itself. */
  add(body: GraphBuilder, node: NewNode): void;
}

/**
 * The node with its bodies raised; the node itself where nothing in them changed.
 * @param graph that the node is in: no body may use one of its names for something else
 */
export function withRaisedBodies(graph: GraphBuilder, node: NewNode, rules: BodyRules): NewNode {
  const changed: Record<string, AttributeValue> = {};
  for (const [name, value] of Object.entries(node.attributes ?? {})) {
    if (!('raw' in value)) continue;
    const attribute = onnx.AttributeProto.decode(value.raw);
    const bodies = bodiesOf(attribute);
    if (!bodies.flatMap(nodesOf).some((one) => rules.isOld(newNode(one)))) continue;
    const raise = (body: BodyProto) => raisedBody(graph, body, rules);
    const { g, graphs } = attribute;
    const raised = { ...attribute, g: g ? raise(g) : null, graphs: (graphs ?? []).map(raise) };
    changed[name] = { ...value, raw: onnx.AttributeProto.encode(raised).finish() };
  }
  const isChanged = Object.keys(changed).length > 0;
  return isChanged ? { ...node, attributes: { ...node.attributes, ...changed } } : node;
}

function raisedBody(graph: GraphBuilder, body: BodyProto, rules: BodyRules): BodyProto {
  const builder = new GraphBuilder(graph.opsets, graph.irVersion);
  builder.reserveAllOf(graph);
  for (const name of namesIn(body)) builder.reserve(name);
  for (const node of body.node ?? []) rules.add(builder, newNode(node));
  // Later nodes of the graph around it keep clear of the new names as well.
  graph.reserveAllOf(builder);
  const { graph: added } = onnx.ModelProto.decode(
    Buffer.concat(builder.modelPieces() as Uint8Array[]),
  );
  const initializer = [...(body.initializer ?? []), ...(added?.initializer ?? [])];
  return { ...body, node: added?.node ?? [], initializer };
}

function* namesIn({ input, initializer, node }: BodyProto): Generator<string> {
  for (const { name } of [...(input ?? []), ...(initializer ?? [])]) if (name) yield name;
  for (const { name, output } of node ?? []) {
    if (name) yield name;
    yield* output ?? [];
  }
}

/** All nodes of a body, those of the bodies in it as well. */
function nodesOf({ node }: BodyProto): onnxProto.onnx.INodeProto[] {
  return (node ?? []).flatMap((one) => [
    one,
    ...(one.attribute ?? []).flatMap(bodiesOf).flatMap(nodesOf),
  ]);
}

function bodiesOf({ g, graphs }: AttributeProto): BodyProto[] {
  return [...(g ? [g] : []), ...(graphs ?? [])];
}

function newNode(node: onnxProto.onnx.INodeProto): NewNode {
  const { name, opType, domain, input, output, attribute } = node;
  return {
    ...{ name: name ?? '', opType: opType ?? '', domain: domain ?? '' },
    ...{ inputs: input ?? [], outputs: output ?? [] },
    attributes: Object.fromEntries(
      (attribute ?? []).map((one) => [one.name ?? '', valueOfAttribute(one)]),
    ),
  };
}

const { AttributeType } = onnx.AttributeProto;

/** The inputs of new forms as plain values, the rest as it is. */
function valueOfAttribute(attribute: AttributeProto): AttributeValue {
  const { type, i, f, s, ints, floats } = attribute;
  switch (type) {
    case AttributeType.INT:
      return { int: integer(i ?? 0) };
    case AttributeType.INTS:
      return { ints: (ints ?? []).map(integer) };
    case AttributeType.FLOAT:
      return { float: f ?? 0 };
    case AttributeType.FLOATS:
      return { floats: floats ?? [] };
    case AttributeType.STRING:
      return { text: Buffer.from(s ?? encodeString('')).toString() };
    default:
      return { raw: onnx.AttributeProto.encode(attribute).finish(), captures: [] };
  }
}

/** Exact: the decoder gives halves of 32 bits where a number would round. */
function integer(value: number | { readonly low: number; readonly high: number }): Integer {
  if (typeof value === 'number') return value;
  return (BigInt(value.high) << 32n) | BigInt(value.low >>> 0);
}
