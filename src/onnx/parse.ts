/** Parses wire records into the elements of model.ts. */
import { OnnxLoraError } from '../errors.js';
import type { ByteSource } from './byte-source.js';
import {
  AttributeField,
  DimField,
  EntryField,
  FunctionField,
  GraphField,
  ModelField,
  NodeField,
  OpsetField,
  ShapeField,
  SparseTensorField,
  TensorField,
  TensorTypeField,
  TypeField,
  ValueInfoField,
} from './fields.js';
import type {
  Attribute,
  Dim,
  Entry,
  FunctionDef,
  Graph,
  Model,
  Node,
  OpsetImport,
  Tensor,
  TensorData,
  ValueInfo,
} from './model.js';
import { FileSource } from './source.js';
import {
  type Field,
  fieldsOf,
  MAX_TEXT_BYTES,
  malformed,
  messageRange,
  readFloats,
  readInt,
  readInts,
  readString,
} from './wire.js';

// Control flow nests a few levels deep; a file that nests thousands would exhaust the stack.
const MAX_GRAPH_DEPTH = 64;

// Names, modes and axes; longer ones carry data (serialized engines, tables, or a weight after a
// damaged tag) that nothing here looks at.
const MAX_ATTRIBUTE_BYTES = 64 * 1024;

// A tensor has a handful of dimensions; more than this are a weight after a damaged tag.
const MAX_DIMENSION_BYTES = 1024;

/**
 * Opens an ONNX file: reads its structure, not its weights. Close the model when done.
 * @throws OnnxLoraError `file-not-found`, `not-a-file`, `invalid-model`
 */
export function openModel(path: string): Model {
  const source = new FileSource(path);
  try {
    return parseModel(source);
  } catch (error) {
    source.close();
    throw error;
  }
}

/** The model in `source`, which stays open as long as the model is used. */
export function parseModel(source: ByteSource): Model {
  if (source.size === 0) {
    throw new OnnxLoraError('invalid-model', `${source.label} is empty, expected an ONNX model`);
  }
  return new Parser(source).model();
}

// An error is one line.
const MAX_SHOWN_CHARACTERS = 80;

class Parser {
  constructor(private readonly source: ByteSource) {}

  model(): Model {
    const range = { start: 0, end: this.source.size };
    let irVersion = 0;
    let producer = '';
    let graph: Graph | undefined;
    const opsets: OpsetImport[] = [];
    const metadata: Entry[] = [];
    const functions: FunctionDef[] = [];
    for (const field of fieldsOf(this.source, range)) {
      switch (field.number) {
        case ModelField.irVersion:
          irVersion = readInt(this.source, field);
          break;
        case ModelField.producerName:
          producer = `${this.text(field)} ${producer}`.trim();
          break;
        case ModelField.producerVersion:
          producer = `${producer} ${this.text(field)}`.trim();
          break;
        case ModelField.opsetImport:
          opsets.push(this.opset(field));
          break;
        case ModelField.metadataProps:
          metadata.push(this.entry(field));
          break;
        case ModelField.functions:
          functions.push(this.function(field));
          break;
        case ModelField.graph:
          if (graph) throw malformed(this.source, field.start, 'one graph', 'a second one');
          graph = this.graph(field, undefined, 0);
          break;
      }
    }
    const { source } = this;
    if (!graph || irVersion < 1) throw notModel(source, graph ? 'IR version' : 'graph');
    const close = () => source.close();
    return { source, range, irVersion, producer, opsets, metadata, functions, graph, close };
  }

  private graph(field: Field, parent: Graph['parent'], depth: number): Graph {
    if (depth > MAX_GRAPH_DEPTH) {
      throw malformed(this.source, field.start, `at most ${MAX_GRAPH_DEPTH} nested graphs`, 'more');
    }
    const graph = emptyGraph(field, parent);
    for (const item of this.fields(field)) {
      switch (item.number) {
        case GraphField.node:
          graph.nodes.push(this.node(item, graph, depth));
          break;
        case GraphField.name:
          graph.name = this.text(item);
          break;
        case GraphField.initializer: {
          const tensor = this.tensor(item);
          graph.initializers.set(tensor.name, tensor);
          break;
        }
        case GraphField.sparseInitializer:
          graph.sparseInitializers.add(this.sparseName(item));
          break;
        case GraphField.input:
          graph.inputs.push(this.valueInfo(item));
          break;
        case GraphField.output:
          graph.outputs.push(this.valueInfo(item));
          break;
        case GraphField.valueInfo:
          graph.valueInfo.push(this.valueInfo(item));
          break;
      }
    }
    return graph;
  }

  private function(field: Field): FunctionDef {
    const body = emptyGraph(field, undefined);
    let name = '';
    let domain = '';
    let overload = '';
    const opsets: OpsetImport[] = [];
    const defaults = new Map<string, Attribute>();
    for (const item of this.fields(field)) {
      switch (item.number) {
        case FunctionField.name:
          name = this.text(item);
          break;
        case FunctionField.domain:
          domain = this.text(item);
          break;
        case FunctionField.overload:
          overload = this.text(item);
          break;
        case FunctionField.opsetImport:
          opsets.push(this.opset(item));
          break;
        case FunctionField.attributeProto: {
          const attribute = this.attribute(item, undefined, 0);
          defaults.set(attribute.name, attribute);
          break;
        }
        case FunctionField.input:
          body.inputs.push(this.untyped(item));
          break;
        case FunctionField.output:
          body.outputs.push(this.untyped(item));
          break;
        case FunctionField.node:
          body.nodes.push(this.node(item, body, 0));
          break;
      }
    }
    return { field, domain, name, overload, opsets, defaults, body };
  }

  private node(field: Field, graph: Graph, depth: number): Node {
    const node = {
      field,
      graph,
      name: '',
      opType: '',
      domain: '',
      overload: '',
      inputs: [] as string[],
      outputs: [] as string[],
      inputFields: [] as Field[],
      outputFields: [] as Field[],
      attributes: new Map<string, Attribute>(),
      metadata: [] as Entry[],
    };
    for (const item of this.fields(field)) {
      switch (item.number) {
        case NodeField.input:
          node.inputFields.push(item);
          node.inputs.push(this.text(item));
          break;
        case NodeField.output:
          node.outputFields.push(item);
          node.outputs.push(this.text(item));
          break;
        case NodeField.name:
          node.name = this.text(item);
          break;
        case NodeField.opType:
          node.opType = this.text(item);
          break;
        case NodeField.domain:
          node.domain = standardDomain(this.text(item));
          break;
        case NodeField.overload:
          node.overload = this.text(item);
          break;
        case NodeField.attribute: {
          const attribute = this.attribute(item, node, depth);
          node.attributes.set(attribute.name, attribute);
          break;
        }
        case NodeField.metadataProps:
          node.metadata.push(this.entry(item));
          break;
      }
    }
    return node;
  }

  /** @param node whose attribute it is; none for the default of a function */
  private attribute(field: Field, node: Node | undefined, depth: number): Attribute {
    const attribute = {
      field,
      name: '',
      f: undefined as number | undefined,
      i: undefined as number | undefined,
      s: undefined as string | undefined,
      floats: [] as number[],
      ints: [] as number[],
      tensor: undefined as Tensor | undefined,
      sparse: false,
      graphs: [] as Graph[],
      refName: undefined as string | undefined,
    };
    for (const item of this.fields(field)) {
      switch (item.number) {
        case AttributeField.name:
          attribute.name = this.text(item);
          break;
        case AttributeField.f:
          attribute.f = readFloats(this.source, item)[0];
          break;
        case AttributeField.i:
          attribute.i = readInt(this.source, item);
          break;
        case AttributeField.s:
          if (isShort(item)) attribute.s = this.text(item);
          break;
        case AttributeField.t:
          attribute.tensor = this.tensor(item);
          break;
        case AttributeField.floats:
          if (isShort(item)) attribute.floats.push(...readFloats(this.source, item));
          break;
        case AttributeField.ints:
          if (isShort(item)) attribute.ints.push(...readInts(this.source, item));
          break;
        case AttributeField.g:
        case AttributeField.graphs:
          attribute.graphs.push(this.graph(item, node && { node, attribute: field }, depth + 1));
          break;
        case AttributeField.refAttrName:
          attribute.refName = this.text(item);
          break;
        case AttributeField.sparseTensor:
          attribute.sparse = true;
          break;
      }
    }
    return attribute;
  }

  tensor(field: Field): Tensor {
    let name = '';
    let dataType = 0;
    let external = false;
    let segmented = false;
    let raw: Field | undefined;
    const dims: number[] = [];
    const typed: Field[] = [];
    const entries: Field[] = [];
    for (const item of this.fields(field)) {
      switch (item.number) {
        case TensorField.dims:
          dims.push(...this.dimensions(item));
          break;
        case TensorField.dataType:
          dataType = readInt(this.source, item);
          break;
        case TensorField.segment:
          segmented = true;
          break;
        case TensorField.name:
          name = this.text(item);
          break;
        case TensorField.rawData:
          messageRange(this.source, item);
          raw = item;
          break;
        case TensorField.floatData:
        case TensorField.int32Data:
        case TensorField.stringData:
        case TensorField.int64Data:
        case TensorField.doubleData:
        case TensorField.uint64Data:
          typed.push(item);
          break;
        case TensorField.externalData:
          entries.push(item);
          break;
        case TensorField.dataLocation:
          external = readInt(this.source, item) === 1;
          break;
      }
    }
    const data = (): TensorData => {
      if (segmented) return { kind: 'segmented' };
      if (external) return this.externalData(entries, field);
      if (raw) return { kind: 'raw', field: raw };
      return typed.length > 0 ? { kind: 'typed', fields: typed } : { kind: 'empty' };
    };
    return { field, name, dataType, dims, data: data() };
  }

  private externalData(entries: Field[], tensor: Field): TensorData {
    const values = new Map<string, string>();
    for (const entry of entries.map((field) => this.entry(field))) {
      values.set(entry.key, entry.value());
    }
    const bytes = (key: string): number | undefined => {
      const text = values.get(key);
      if (text === undefined) return undefined;
      const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
      if (Number.isSafeInteger(value)) return value;
      const found = JSON.stringify(text.slice(0, MAX_SHOWN_CHARACTERS));
      throw malformed(this.source, tensor.start, `external data with a numeric ${key}`, found);
    };
    return {
      kind: 'external',
      location: values.get('location') ?? '',
      offset: bytes('offset') ?? 0,
      length: bytes('length'),
      entries,
    };
  }

  private valueInfo(field: Field): ValueInfo {
    let name = '';
    let dataType = 0;
    let shape: Dim[] | null = null;
    const metadata: Entry[] = [];
    for (const item of this.fields(field)) {
      if (item.number === ValueInfoField.name) name = this.text(item);
      if (item.number === ValueInfoField.metadataProps) metadata.push(this.entry(item));
      if (item.number !== ValueInfoField.type) continue;
      for (const type of this.fields(item)) {
        if (type.number !== TypeField.tensor) continue;
        for (const part of this.fields(type)) {
          if (part.number === TensorTypeField.elemType) dataType = readInt(this.source, part);
          if (part.number === TensorTypeField.shape) shape = this.shape(part);
        }
      }
    }
    return { field, name, dataType, shape, metadata };
  }

  /** Functions name their inputs and outputs without types. */
  private untyped(field: Field): ValueInfo {
    return { field, name: this.text(field), dataType: 0, shape: null, metadata: [] };
  }

  private shape(field: Field): Dim[] {
    const dims: Dim[] = [];
    for (const item of this.fields(field)) {
      if (item.number !== ShapeField.dim) continue;
      let dim: Dim = null;
      for (const part of this.fields(item)) {
        if (part.number === DimField.value) dim = readInt(this.source, part);
        if (part.number === DimField.param) dim = this.text(part) || null;
      }
      dims.push(dim);
    }
    return dims;
  }

  private opset(field: Field): OpsetImport {
    let domain = '';
    let version = 0;
    for (const item of this.fields(field)) {
      if (item.number === OpsetField.domain) domain = standardDomain(this.text(item));
      if (item.number === OpsetField.version) version = readInt(this.source, item);
    }
    return { domain, version };
  }

  private sparseName(field: Field): string {
    for (const item of this.fields(field)) {
      if (item.number === SparseTensorField.values) return this.tensor(item).name;
    }
    return '';
  }

  private entry(field: Field): Entry {
    let key = '';
    let value: Field | undefined;
    for (const item of this.fields(field)) {
      if (item.number === EntryField.key) key = this.text(item);
      if (item.number === EntryField.value) value = item;
    }
    const text = () => (value ? readString(this.source, value, MAX_TEXT_BYTES) : '');
    return { field, key, value: text };
  }

  private dimensions(field: Field): number[] {
    const length = field.end - field.value;
    if (length > MAX_DIMENSION_BYTES) {
      throw malformed(this.source, field.start, 'dimensions of a tensor', `${length} bytes`);
    }
    const dims = readInts(this.source, field);
    const bad = dims.find((dim) => dim < 0 || !Number.isSafeInteger(dim));
    if (bad === undefined) return dims;
    throw malformed(this.source, field.start, 'a dimension of 0 or more', bad);
  }

  private fields(field: Field): Generator<Field> {
    return fieldsOf(this.source, messageRange(this.source, field));
  }

  private text(field: Field): string {
    return readString(this.source, field);
  }
}

function notModel({ label }: ByteSource, missing: string): OnnxLoraError {
  return new OnnxLoraError('invalid-model', `${label} is not an ONNX model: it has no ${missing}`, {
    hint: 'Expected a file written by an ONNX exporter (.onnx).',
  });
}

function isShort(field: Field): boolean {
  return field.end - field.value <= MAX_ATTRIBUTE_BYTES;
}

function emptyGraph(field: Field, parent: Graph['parent']) {
  return {
    field,
    parent,
    name: '',
    nodes: [] as Node[],
    initializers: new Map<string, Tensor>(),
    sparseInitializers: new Set<string>(),
    inputs: [] as ValueInfo[],
    outputs: [] as ValueInfo[],
    valueInfo: [] as ValueInfo[],
  };
}

function standardDomain(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}
