/**
 * A graph in memory that grows: what step graphs and other new models are built with. Weights stay
 * where they are, as pieces; `modelPieces` is the whole as an ONNX file.
 */
import {
  type DataTypeName,
  dataTypeNumber,
  fromFloat64,
  fromIntegers,
  isConvertible,
} from '../onnx/dtype.js';
import { collect, type Piece, recordHeader, totalLength } from '../onnx/edit.js';
import {
  type AttributeValue,
  externalInitializerRecord,
  type Integer,
  initializerRecord,
  type NewNode,
  type NewTensor,
  nodeRecord,
  record,
  stringRecord,
} from '../onnx/encode.js';
import { GraphField, ModelField } from '../onnx/fields.js';
import type { Dim, OpsetImport } from '../onnx/model.js';
import { placeIn } from '../onnx/place-in.js';
import { onnx } from '../onnx/proto.js';

/** A graph input or output; a null shape leaves even the rank open. */
export interface ValueSpec {
  /** Name of the value. */
  readonly name: string;
  /** Its type; undefined where it is not known. */
  readonly dtype: DataTypeName | undefined;
  /** Its shape; null where the rank is not known. */
  readonly shape: readonly Dim[] | null;
}

/** Attributes by name. */
export type Attributes = Readonly<Record<string, AttributeValue>>;

/** An ONNX graph that is being built or changed, and its way to bytes. */
export class GraphBuilder {
  /** The nodes, in an order that can be run. */
  readonly nodes: NewNode[] = [];
  /** The constants, by name. */
  readonly initializers = new Map<string, NewTensor>();
  /** The inputs, in the order that callers see. */
  readonly inputs: ValueSpec[] = [];
  /** The outputs, in the order that callers see. */
  readonly outputs: ValueSpec[] = [];
  private readonly taken = new Set<string>();
  /** The number that a wanted name got last: thousands of layers want the same ones. */
  private readonly numbers = new Map<string, number>();
  private readonly constants = new Map<string, string>();
  private readonly imports: OpsetImport[];

  constructor(
    opsets: readonly OpsetImport[],
    /** The `ir_version` that is written. */
    readonly irVersion = 8,
  ) {
    this.imports = [...opsets];
  }

  /** Operator sets, the standard one under the empty name. */
  get opsets(): readonly OpsetImport[] {
    return this.imports;
  }

  /** Makes the operators of a domain known, where they are not yet. */
  importDomain(domain: string, version: number): void {
    if (this.imports.some((known) => known.domain === domain)) return;
    this.imports.push({ domain, version });
  }

  /** The version of the standard operators. */
  get opset(): number {
    return this.opsets.find(({ domain }) => domain === '')?.version ?? 1;
  }

  /** `wanted`, or with a number appended where that is taken. */
  fresh(wanted: string): string {
    let name = wanted;
    let number = this.numbers.get(wanted) ?? 0;
    while (this.taken.has(name)) name = `${wanted}_${++number}`;
    this.numbers.set(wanted, number);
    this.taken.add(name);
    return name;
  }

  /** Keeps a name from being handed out. */
  reserve(name: string): void {
    this.taken.add(name);
  }

  /** Keeps all names that are taken in another graph, those within its bodies as well. */
  reserveAllOf(other: GraphBuilder): void {
    for (const name of other.taken) this.taken.add(name);
  }

  /** Adds a node as it is. */
  add(node: NewNode): void {
    // Nodes are identified by their names, and new ones are named after their outputs.
    this.reserve(node.name);
    for (const name of node.outputs) this.reserve(name);
    this.nodes.push(node);
  }

  /** Adds a node and gives the name of its only output. */
  op(
    opType: string,
    inputs: readonly string[],
    attributes: Attributes = {},
    hint = opType,
  ): string {
    return this.ops(opType, inputs, 1, attributes, hint)[0]!;
  }

  /** Adds a node with several outputs. */
  ops(
    opType: string,
    inputs: readonly string[],
    outputCount: number,
    attributes: Attributes = {},
    hint = opType,
  ): string[] {
    const name = this.fresh(hint.toLowerCase());
    const outputs =
      outputCount === 1
        ? [name]
        : Array.from({ length: outputCount }, (_, i) => this.fresh(`${name}:${i}`));
    this.nodes.push({ name, opType, inputs, outputs, attributes });
    return outputs;
  }

  /** Adds a constant under its own name. */
  addInitializer(tensor: NewTensor): void {
    this.reserve(tensor.name);
    this.initializers.set(tensor.name, tensor);
  }

  /** A constant of the given numbers; the same numbers give the same one. */
  constant(dtype: DataTypeName, dims: readonly number[], values: readonly Integer[]): string {
    const key = `${dtype}[${dims}]${values}`;
    const known = this.constants.get(key);
    // One that nothing read may have been pruned.
    if (known !== undefined && this.initializers.has(known)) return known;
    const name = this.fresh(`const_${dtype}_${dims.join('x') || 'scalar'}`);
    this.addInitializer({ name, dtype, dims, data: bytesOf(dtype, values) });
    this.constants.set(key, name);
    return name;
  }

  /** A constant without axes; equal ones are stored once. */
  scalar(dtype: DataTypeName, value: Integer): string {
    return this.constant(dtype, [], [value]);
  }

  /** A 1-D int64 constant: axes, shapes, starts. */
  integers(values: readonly Integer[]): string {
    return this.constant('int64', [values.length], values);
  }

  /** Gives a value another name, wherever it is used. */
  rename(value: string, wanted: string): string {
    if (value === wanted) return value;
    const name = this.fresh(wanted);
    const named = (names: readonly string[]) => names.map((one) => (one === value ? name : one));
    for (const [i, node] of this.nodes.entries()) {
      if (!node.inputs.includes(value) && !node.outputs.includes(value)) continue;
      this.nodes[i] = { ...node, inputs: named(node.inputs), outputs: named(node.outputs) };
    }
    return name;
  }

  /**
   * The model as the pieces of a file.
   * @param folder weights in files of this folder are referred to as external data, where they are
   */
  modelPieces(metadata: Readonly<Record<string, string>> = {}, folder?: string): Piece[] {
    const header = onnx.ModelProto.encode({
      irVersion: this.irVersion,
      producerName: 'onnx-lora',
      opsetImport: this.opsets.map(({ domain, version }) => ({ domain, version })),
      metadataProps: Object.entries(metadata).map(([key, value]) => ({ key, value })),
    }).finish();
    const graph = this.graphPieces(folder);
    // A large graph has more pieces than a call can have arguments.
    return [header, recordHeader(ModelField.graph, totalLength(graph)), ...graph];
  }

  /**
   * The model as the bytes of an ONNX file, weights included.
   * @param metadata for the file's `metadata_props`
   */
  async toBytes(metadata: Readonly<Record<string, string>> = {}): Promise<Uint8Array> {
    return await collect(this.modelPieces(metadata));
  }

  private graphPieces(folder: string | undefined): Piece[] {
    const pieces: Piece[] = [stringRecord(GraphField.name, 'graph')];
    const add = (more: readonly Piece[]) => {
      for (const piece of more) pieces.push(piece);
    };
    for (const node of this.nodes) add(nodeRecord(node));
    for (const tensor of this.initializers.values()) {
      const place = placeIn(folder, tensor.data);
      add(place ? externalInitializerRecord(tensor, place) : initializerRecord(tensor));
    }
    for (const input of this.inputs) add(record(GraphField.input, valueInfo(input)));
    for (const output of this.outputs) add(record(GraphField.output, valueInfo(output)));
    return pieces;
  }
}

/** A graph of the same nodes, tensors, inputs and outputs, which can lose some of them. */
export function copyOf(graph: GraphBuilder): GraphBuilder {
  const copy = new GraphBuilder(graph.opsets, graph.irVersion);
  for (const node of graph.nodes) copy.add(node);
  for (const tensor of graph.initializers.values()) copy.addInitializer(tensor);
  for (const input of graph.inputs) copy.inputs.push(input);
  for (const output of graph.outputs) copy.outputs.push(output);
  return copy;
}

function bytesOf(dtype: DataTypeName, values: readonly Integer[]): Uint8Array {
  if (!isConvertible(dtype)) return fromIntegers(dtype, values);
  return fromFloat64(dtype, Float64Array.from(values, Number));
}

function valueInfo({ name, dtype, shape }: ValueSpec): Uint8Array {
  if (dtype === undefined) return onnx.ValueInfoProto.encode({ name }).finish();
  const dim = (shape ?? []).map((size) => {
    if (size === null) return {};
    return typeof size === 'number' ? { dimValue: size } : { dimParam: size };
  });
  const elemType = dataTypeNumber(dtype);
  const tensorType = shape === null ? { elemType } : { elemType, shape: { dim } };
  return onnx.ValueInfoProto.encode({ name, type: { tensorType } }).finish();
}
