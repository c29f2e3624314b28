import type { AttributeValue } from '../onnx/encode.js';
import { onnx } from '../onnx/proto.js';
import { GraphBuilder } from './builder.js';
import { capturedBy } from './prune.js';

/**
 * A new graph as an attribute of a node of `graph`: the body of a Scan, Loop or If.
 * @param name of the attribute
 * @param build adds inputs, nodes and outputs; its weights have to be in memory
 */
export function bodyAttribute(
  graph: GraphBuilder,
  name: string,
  build: (body: GraphBuilder) => void,
): AttributeValue {
  const body = new GraphBuilder(graph.opsets, graph.irVersion);
  // A value of a body may not have the name of one around it.
  for (const value of valuesOf(graph)) body.reserve(value);
  build(body);
  for (const value of valuesOf(body)) graph.reserve(value);
  return { raw: encoded(name, body), captures: capturesOf(body) };
}

/** The values around a body that it reads. */
function capturesOf(body: GraphBuilder): string[] {
  const own = new Set(valuesOf(body));
  const inner = body.nodes.flatMap(capturedBy);
  const inputs = body.nodes.flatMap((node) => node.inputs);
  const outputs = body.outputs.map((output) => output.name);
  return [...inputs, ...outputs, ...inner].filter((value) => value !== '' && !own.has(value));
}

function* valuesOf({ inputs, initializers, nodes }: GraphBuilder): Generator<string> {
  for (const input of inputs) yield input.name;
  yield* initializers.keys();
  for (const { outputs } of nodes) yield* outputs;
}

function encoded(name: string, body: GraphBuilder): Uint8Array {
  const pieces = body.modelPieces().map((piece) => {
    if (piece instanceof Uint8Array) return piece;
    throw new Error(`the body ${name} refers to weights in a file`);
  });
  const { graph } = onnx.ModelProto.decode(Buffer.concat(pieces));
  const type = onnx.AttributeProto.AttributeType.GRAPH;
  return onnx.AttributeProto.encode({ name, type, g: graph ?? null }).finish();
}
