/**
 * The contents of an ONNX file, by reference: every element carries the range of bytes that holds it,
 * so that an edit can replace it and copy all the rest. Weights stay in the file.
 */

import type { ByteSource } from './byte-source.js';
import type { Field, Range } from './wire.js';

/** A key and value of a `metadata_props`. */
export interface Entry {
  /** Its record in the file. */
  readonly field: Field;
  /** The key. */
  readonly key: string;
  /** Read when asked for: exporters keep stack traces here. */
  value(): string;
}

/** A set of operators that a model uses. */
export interface OpsetImport {
  /** `''` for the standard operators. */
  readonly domain: string;
  /** Version of the set. */
  readonly version: number;
}

/** The place of a tensor's numbers. */
export type TensorData =
  | {
      /** In `raw_data`. */
      readonly kind: 'raw';
      /** The record of the bytes. */
      readonly field: Field;
    }
  | {
      /** In `float_data`, `int32_data` and the like. */
      readonly kind: 'typed';
      /** The records of the numbers. */
      readonly fields: readonly Field[];
    }
  | {
      /** In another file. */
      readonly kind: 'external';
      /** Path of the file, from the folder of the model. */
      readonly location: string;
      /** First byte in the file. */
      readonly offset: number;
      /** Bytes; undefined where the file does not give it. */
      readonly length: number | undefined;
      /** The records of `external_data`. */
      readonly entries: readonly Field[];
    }
  | {
      /** In segments, which are not read. */
      readonly kind: 'segmented';
    }
  | {
      /** A tensor without numbers. */
      readonly kind: 'empty';
    };

/** A TensorProto: an initializer, or the value of a Constant node. */
export interface Tensor {
  /** Its record in the file. */
  readonly field: Field;
  /** Name of the tensor. */
  readonly name: string;
  /** ONNX data type number; see dtype.ts. */
  readonly dataType: number;
  /** Its shape. */
  readonly dims: readonly number[];
  /** The place of its numbers. */
  readonly data: TensorData;
}

/** An attribute of a node. Which of the values is set depends on its type. */
export interface Attribute {
  /** Its record in the file. */
  readonly field: Field;
  /** Name of the attribute. */
  readonly name: string;
  /** A float. */
  readonly f: number | undefined;
  /** An integer. */
  readonly i: number | undefined;
  /** A text. */
  readonly s: string | undefined;
  /** A list of floats. */
  readonly floats: readonly number[];
  /** A list of integers. */
  readonly ints: readonly number[];
  /** A tensor. */
  readonly tensor: Tensor | undefined;
  /** Whether it holds a sparse tensor, which is not read. */
  readonly sparse: boolean;
  /** The bodies of If, Loop and Scan. */
  readonly graphs: readonly Graph[];
  /** Inside a function: the attribute of the call that this one takes its value from. */
  readonly refName: string | undefined;
}

/** A node of a graph. */
export interface Node {
  /** Its record in the file. */
  readonly field: Field;
  /** The records of its inputs' names. */
  readonly inputFields: readonly Field[];
  /** The records of its outputs' names. */
  readonly outputFields: readonly Field[];
  /** Its name; may be empty. */
  readonly name: string;
  /** Name of the operator. */
  readonly opType: string;
  /** `''` for the standard operators. */
  readonly domain: string;
  /** Which of several model-local functions of one name is called. */
  readonly overload: string;
  /** Names of the values that it reads; `''` for one that is left out. */
  readonly inputs: readonly string[];
  /** Names of the values that it makes; `''` for one that nobody reads. */
  readonly outputs: readonly string[];
  /** Attributes by name. */
  readonly attributes: ReadonlyMap<string, Attribute>;
  /** Its `metadata_props`. */
  readonly metadata: readonly Entry[];
  /** The graph that holds the node. */
  readonly graph: Graph;
}

/** A dimension: its size, its symbol, or null where the file gives neither. */
export type Dim = number | string | null;

/** Type and shape of a value, as the file declares them. */
export interface ValueInfo {
  /** Its record in the file. */
  readonly field: Field;
  /** Name of the value. */
  readonly name: string;
  /** ONNX data type number; 0 for values that are not tensors. */
  readonly dataType: number;
  /** null where the rank is not known. */
  readonly shape: readonly Dim[] | null;
  /** Its `metadata_props`. */
  readonly metadata: readonly Entry[];
}

/** A graph: the model's own, the body of an If, Loop or Scan, or of a function. */
export interface Graph {
  /** The record of this graph: a field of the model, or of an attribute. */
  readonly field: Field;
  /** Its name; may be empty. */
  readonly name: string;
  /** The nodes, in the order of the file. */
  readonly nodes: readonly Node[];
  /** The constants, by name. */
  readonly initializers: ReadonlyMap<string, Tensor>;
  /** Names of sparse constants, which are not read. */
  readonly sparseInitializers: ReadonlySet<string>;
  /** The inputs, in the order of the file. */
  readonly inputs: readonly ValueInfo[];
  /** The outputs, in the order of the file. */
  readonly outputs: readonly ValueInfo[];
  /** Types of other values, as far as the file declares them. */
  readonly valueInfo: readonly ValueInfo[];
  /** The node and attribute whose body this is; undefined for the main graph. */
  readonly parent:
    | {
        /** An If, Loop or Scan. */
        readonly node: Node;
        /** The record of the attribute. */
        readonly attribute: Field;
      }
    | undefined;
}

/** A model-local function: its nodes see its own inputs only. */
export interface FunctionDef {
  /** Its record in the file. */
  readonly field: Field;
  /** Domain that calls name. */
  readonly domain: string;
  /** The operator type that calls name. */
  readonly name: string;
  /** Which of several functions of one name it is. */
  readonly overload: string;
  /** The operators that its nodes use. */
  readonly opsets: readonly OpsetImport[];
  /** Attributes that a call may leave out, with their values. */
  readonly defaults: ReadonlyMap<string, Attribute>;
  /** Its nodes. */
  readonly body: Graph;
}

/** An ONNX file, parsed. */
export interface Model {
  /** The bytes. */
  readonly source: ByteSource;
  /** The whole file. */
  readonly range: Range;
  /** The `ir_version` of the file. */
  readonly irVersion: number;
  /** The operators that it uses. */
  readonly opsets: readonly OpsetImport[];
  /** The `producer_name` of the file. */
  readonly producer: string;
  /** Its `metadata_props`. */
  readonly metadata: readonly Entry[];
  /** The main graph. */
  readonly graph: Graph;
  /** Its model-local functions. */
  readonly functions: readonly FunctionDef[];
  /** Closes the file. */
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
