/** Models of a few lines, written with onnx-proto: what a test needs and nothing else. */
import onnxProto from 'onnx-proto';
import {
  type DataTypeName,
  dataTypeNumber,
  fromFloat64,
  isConvertible,
} from '../../src/onnx/dtype.js';

const { onnx } = onnxProto;
const { AttributeType } = onnx.AttributeProto;

export type TensorProto = onnxProto.onnx.ITensorProto;
export type NodeProto = onnxProto.onnx.INodeProto;
export type GraphProto = onnxProto.onnx.IGraphProto;
export type FunctionProto = onnxProto.onnx.IFunctionProto;
export type ValueProto = onnxProto.onnx.IValueInfoProto;

/** A number is an int, a bigint one beyond 2^53; floats are `{ float }`. */
export type Attribute =
  | number
  | bigint
  | string
  | readonly (number | bigint)[]
  | { float: number }
  | { floats: readonly number[] }
  | { tensor: TensorProto }
  | { graph: GraphProto };

/** `node('MatMul', ['x', 'w'], 'y')`; a domain stands before the type: `com.microsoft:FusedMatMul`. */
export function node(
  operator: string,
  inputs: readonly string[],
  outputs: string | readonly string[],
  attributes: Readonly<Record<string, Attribute>> = {},
  name = '',
): NodeProto {
  const [domain, opType] = operator.includes(':') ? operator.split(':') : ['', operator];
  return {
    ...(domain ? { domain } : {}),
    ...(name ? { name } : {}),
    opType: opType!,
    input: [...inputs],
    output: typeof outputs === 'string' ? [outputs] : [...outputs],
    attribute: Object.entries(attributes).map(([key, value]) => attribute(key, value)),
  };
}

function attribute(name: string, value: Attribute): onnxProto.onnx.IAttributeProto {
  if (typeof value === 'number') return { name, type: AttributeType.INT, i: value };
  if (typeof value === 'bigint') return { name, type: AttributeType.INT, i: int64(value) };
  if (typeof value === 'string') return { name, type: AttributeType.STRING, s: Buffer.from(value) };
  if ('float' in value) return { name, type: AttributeType.FLOAT, f: value.float };
  if ('tensor' in value) return { name, type: AttributeType.TENSOR, t: value.tensor };
  if ('graph' in value) return { name, type: AttributeType.GRAPH, g: value.graph };
  if ('floats' in value) return { name, type: AttributeType.FLOATS, floats: [...value.floats] };
  return { name, type: AttributeType.INTS, ints: value.map(int64) };
}

function int64(value: number | bigint) {
  if (typeof value === 'number') return value;
  const [low, high] = [value, value >> 32n].map((half) => Number(BigInt.asIntN(32, half)));
  return { low: low!, high: high!, unsigned: false };
}

/** A tensor; by default of numbers that differ and are exact in every floating-point type. */
export function tensor(
  name: string,
  dims: readonly number[],
  values?: ArrayLike<number>,
  dtype: DataTypeName = 'float32',
): TensorProto {
  const count = dims.reduce((a, b) => a * b, 1);
  const numbers = Float64Array.from(values ?? pattern(count));
  if (numbers.length !== count) throw new Error(`${name}: ${numbers.length} values for ${count}`);
  return {
    name,
    dims: [...dims],
    dataType: dataTypeNumber(dtype),
    rawData: isConvertible(dtype) ? fromFloat64(dtype, numbers) : integers(dtype, numbers),
  };
}

/** Multiples of 1/8 between -2 and 2 in no simple order. */
export function pattern(count: number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => (((i * 37 + 11) % 33) - 16) / 8);
}

function integers(dtype: DataTypeName, values: Float64Array): Uint8Array {
  switch (dtype) {
    case 'int8':
      return new Uint8Array(Int8Array.from(values).buffer);
    case 'uint8':
      return Uint8Array.from(values);
    case 'int32':
      return new Uint8Array(Int32Array.from(values).buffer);
    case 'int64':
      return new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    case 'bool':
      return Uint8Array.from(values);
    case 'int4':
    case 'uint4':
      return Uint8Array.from({ length: Math.ceil(values.length / 2) }, (_, i) => {
        const [low, high] = [values[2 * i]!, values[2 * i + 1] ?? 0];
        return (low & 15) | ((high & 15) << 4);
      });
    default:
      throw new Error(`no test tensors of ${dtype}`);
  }
}

/** A Constant node with a tensor. */
export function constant(output: string, value: TensorProto, name = ''): NodeProto {
  return node('Constant', [], output, { value: { tensor: value } }, name);
}

/** A graph input or output; without dims its rank is open. */
export function value(
  name: string,
  dims?: readonly (number | string)[],
  dtype: DataTypeName = 'float32',
): ValueProto {
  const dim = dims?.map((d) => (typeof d === 'number' ? { dimValue: d } : { dimParam: d }));
  const shape = dim ? { shape: { dim } } : {};
  return { name, type: { tensorType: { elemType: dataTypeNumber(dtype), ...shape } } };
}

export interface GraphParts {
  readonly nodes: readonly NodeProto[];
  readonly initializers?: readonly TensorProto[];
  /** Names stand for float32 of open rank. */
  readonly inputs?: readonly (string | ValueProto)[];
  readonly outputs: readonly (string | ValueProto)[];
}

/** The body of an If, Loop or Scan: `{ graph: body(...) }`. */
export function body({ nodes, initializers = [], inputs = [], outputs }: GraphParts): GraphProto {
  const named = (v: string | ValueProto) => (typeof v === 'string' ? value(v) : v);
  return {
    name: 'graph',
    node: [...nodes],
    initializer: [...initializers],
    input: inputs.map(named),
    output: outputs.map(named),
  };
}

export interface ModelParts extends GraphParts {
  readonly opset?: number;
  readonly irVersion?: number;
  readonly functions?: readonly FunctionProto[];
  /** Domains besides the standard one, at version 1. */
  readonly domains?: readonly string[];
}

/** A model file. Before IR 4 every initializer becomes a graph input as well. */
export function model(parts: ModelParts): Uint8Array {
  const { opset = 17, irVersion = irVersionOf(opset), functions = [], domains = [] } = parts;
  const { initializers = [], inputs = [] } = parts;
  const asInputs = initializers.map(({ name, dims, dataType }) => ({
    name: name!,
    type: {
      tensorType: { elemType: dataType!, shape: { dim: dims!.map((d) => ({ dimValue: d })) } },
    },
  }));
  const graph = body({ ...parts, inputs: irVersion < 4 ? [...inputs, ...asInputs] : inputs });
  const used = [...parts.nodes.map((n) => n.domain ?? ''), ...domains].filter((d) => d !== '');
  return onnx.ModelProto.encode({
    irVersion,
    producerName: 'test',
    opsetImport: [
      { domain: '', version: opset },
      ...[...new Set(used)].map((domain) => ({ domain, version: 1 })),
    ],
    graph,
    functions: [...functions],
  }).finish();
}

/** The IR version that came with an opset, as exporters write it. */
export function irVersionOf(opset: number): number {
  if (opset < 9) return 3;
  if (opset < 11) return 4;
  if (opset < 13) return 6;
  if (opset < 15) return 7;
  if (opset < 19) return 8;
  if (opset < 21) return 9;
  return opset < 23 ? 10 : 11;
}
