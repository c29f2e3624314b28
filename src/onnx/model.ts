/**
 * The contents of an ONNX file, by reference: every element carries the range of bytes that holds it,
 * so that an edit can replace it and copy all the rest. Weights stay in the file.
 */

import type { ByteSource } from './byte-source.js';
import type { Field, Range } from './wire.js';

/** A key and value of a `metadata_props`. */
export interface Entry {
  readonly field: Field;
  readonly key: string;
  /** Read when asked for: exporters keep stack traces here. */
  value(): string;
}

export interface OpsetImport {
  /** `''` for the standard operators. */
  readonly domain: string;
  readonly version: number;
}

/** The place of a tensor's numbers. */
export type TensorData =
  | { readonly kind: 'raw'; readonly field: Field }
  | { readonly kind: 'typed'; readonly fields: readonly Field[] }
  | {
      readonly kind: 'external';
      readonly location: string;
      readonly offset: number;
      /** Bytes; undefined where the file does not give it. */
      readonly length: number | undefined;
      readonly entries: readonly Field[];
    }
  | { readonly kind: 'segmented' }
  | { readonly kind: 'empty' };

/** A TensorProto: an initializer, or the value of a Constant node. */
export interface Tensor {
  readonly field: Field;
  readonly name: string;
  /** ONNX data type number; see dtype.ts. */
  readonly dataType: number;
  readonly dims: readonly number[];
  readonly data: TensorData;
}

export interface Attribute {
  readonly field: Field;
  readonly name: string;
  readonly f: number | undefined;
  readonly i: number | undefined;
  readonly s: string | undefined;
  readonly floats: readonly number[];
  readonly ints: readonly number[];
  readonly tensor: Tensor | undefined;
  readonly sparse: boolean;
  /** The bodies of If, Loop and Scan. */
  readonly graphs: readonly Graph[];
  /** Inside a function: the attribute of the call that this one takes its value from. */
  readonly refName: string | undefined;
}

export interface Node {
  readonly field: Field;
  readonly inputFields: readonly Field[];
  readonly outputFields: readonly Field[];
  readonly name: string;
  readonly opType: string;
  /** `''` for the standard operators. */
  readonly domain: string;
  /** Which of several model-local functions of one name is called. */
  readonly overload: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly metadata: readonly Entry[];
  /** The graph that holds the node. */
  readonly graph: Graph;
}

/** A dimension: its size, its symbol, or null where the file gives neither. */
export type Dim = number | string | null;

export interface ValueInfo {
  readonly field: Field;
  readonly name: string;
  /** ONNX data type number; 0 for values that are not tensors. */
  readonly dataType: number;
  /** null where the rank is not known. */
  readonly shape: readonly Dim[] | null;
  readonly metadata: readonly Entry[];
}

export interface Graph {
  /** The record of this graph: a field of the model, or of an attribute. */
  readonly field: Field;
  readonly name: string;
  readonly nodes: readonly Node[];
  readonly initializers: ReadonlyMap<string, Tensor>;
  readonly sparseInitializers: ReadonlySet<string>;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly valueInfo: readonly ValueInfo[];
  /** The node and attribute whose body this is; undefined for the main graph. */
  readonly parent: { readonly node: Node; readonly attribute: Field } | undefined;
}

/** A model-local function: its nodes see its own inputs only. */
export interface FunctionDef {
  readonly field: Field;
  readonly domain: string;
  readonly name: string;
  readonly overload: string;
  readonly opsets: readonly OpsetImport[];
  /** Attributes that a call may leave out, with their values. */
  readonly defaults: ReadonlyMap<string, Attribute>;
  readonly body: Graph;
}

export interface Model {
  readonly source: ByteSource;
  /** The whole file. */
  readonly range: Range;
  readonly irVersion: number;
  readonly opsets: readonly OpsetImport[];
  readonly producer: string;
  readonly metadata: readonly Entry[];
  readonly graph: Graph;
  readonly functions: readonly FunctionDef[];
  close(): void;
}

/** The version of the standard operators; 0 where the model imports none. */
export function standardOpset(model: Model): number {
  return model.opsets.find((o) => o.domain === '' || o.domain === 'ai.onnx')?.version ?? 0;
}

/** Every graph of the model: the main one, then If/Loop/Scan bodies, each after its parent. */
export function* allGraphs(graph: Graph): Generator<Graph> {
  yield graph;
  for (const node of graph.nodes) {
    for (const attribute of node.attributes.values()) {
      for (const body of attribute.graphs) yield* allGraphs(body);
    }
  }
}

/** The graphs that enclose `graph`, itself first, the main graph (or function body) last. */
export function* enclosingGraphs(graph: Graph): Generator<Graph> {
  let current: Graph | undefined = graph;
  while (current) {
    yield current;
    current = current.parent?.node.graph;
  }
}

/** A node's name in messages: its own, else that of its first output. */
export function nodeLabel(node: Pick<Node, 'name' | 'opType' | 'outputs'>): string {
  return node.name || node.outputs.find((name) => name !== '') || `an unnamed ${node.opType}`;
}

/** The elements of a tensor; 1 for a scalar. */
export function elementCount(dims: readonly number[]): number {
  // Not left to the product: in a hostile file it may be infinite before the 0 comes.
  return dims.includes(0) ? 0 : dims.reduce((product, dim) => product * dim, 1);
}
