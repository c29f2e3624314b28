/**
 * Quantized weights as floating-point matrices, computed by ONNX Runtime with the model's own
 * operators, so that no quantization format is interpreted twice. Of bfloat16, which has no kernels, they are computed
 * in float32 and rounded at the end.
 */

import { OnnxLoraError } from '../../errors.js';
import { isComputing, isStep, MAX_WEIGHT_STEPS, storedTensor } from '../../graph/constants.js';
import type { Value, ValueIndex } from '../../graph/uses.js';
import { wideAttribute, wideType } from '../../graph/widen.js';
import { dataTypeNumber, type FloatName, fromFloat32 } from '../../onnx/dtype.js';
import { type Piece, totalLength } from '../../onnx/edit.js';
import {
  type AttributeValue,
  initializerRecord,
  type NewNode,
  nodeRecord,
  record,
} from '../../onnx/encode.js';
import { GraphField, ModelField } from '../../onnx/fields.js';
import { type Model, type Node, nodeLabel, standardOpset } from '../../onnx/model.js';
import { onnx } from '../../onnx/proto.js';
import { dtypeOf, type TensorReader } from '../../onnx/tensor.js';
import { openSession } from '../../runtime/session.js';
import type { Feeds, TensorValue } from '../../runtime/tensor-value.js';
import type { IntegerProduct, LinearLayer } from '../targets/index.js';
import type { BaseWeight } from './base-weight.js';

/** The parts that are needed to look at a model's weights. */
export interface WeightContext {
  readonly model: Model;
  readonly values: ValueIndex;
  readonly reader: TensorReader;
}

/** The output of a node on constants: a DequantizeLinear, a Mul. Computed when its first row is asked for. */
export function dequantizedTensor(
  context: WeightContext,
  node: Node,
  dims: readonly number[],
  dtype: FloatName,
): BaseWeight {
  const columns = dims.slice(1).reduce((a, b) => a * b, 1);
  let all: Promise<Uint8Array> | undefined;
  return {
    dtype,
    rows: dims[0]!,
    columns,
    async readRows(start, end) {
      all ??= evaluate(context, node, [], dtype).then(once);
      const width = (await all).byteLength / dims[0]!;
      return (await all).subarray(start * width, end * width);
    },
  };
}

/**
 * The weight [in, out] of a layer that is quantized inside its operator (MatMulNBits): the layer's
 * answer to rows of the identity matrix, in full precision. Of a layer in float16 it is rounded to that.
 */
export function weightByIdentity(context: WeightContext, layer: LinearLayer): BaseWeight {
  const { in: rows, out: columns, dtype } = layer.weight;
  let evaluator: Promise<Evaluator> | undefined;
  return {
    dtype,
    rows,
    columns,
    async readRows(start, end) {
      evaluator ??= evaluate(context, layer.node, [layer.input], dtype, WITHOUT_ROUNDING);
      const { run, release } = await evaluator;
      const bytes = await run(new Map([[layer.input, identityRows(start, end, rows, dtype)]]));
      if (end < rows) return bytes;
      // The last rows may be asked for once more.
      evaluator = undefined;
      await release();
      return bytes;
    },
  };
}

/** Rows of an identity matrix. */
function identityRows(start: number, end: number, size: number, dtype: FloatName): TensorValue {
  const Numbers = dtype === 'float16' ? Uint16Array : Float32Array;
  const data = new Numbers((end - start) * size);
  for (let row = start; row < end; row++) {
    data[(row - start) * size + row] = dtype === 'float16' ? FLOAT16_ONE : 1;
  }
  return { dtype: wideType(dtype), dims: [end - start, size], data };
}

const FLOAT16_ONE = 0x3c00;

/** The weight [in, out] that the integers of a product stand for, `(integers - zeroPoint) · scale`. */
export function weightOfIntegers(
  context: WeightContext,
  { weight }: LinearLayer,
  { node, integers, scale, zeroPoint }: IntegerProduct,
): BaseWeight {
  const { in: rows, out: columns, dtype, transposed } = weight;
  const to = { to: { int: dataTypeNumber(wideType(dtype)) } };
  const steps: NewNode[] = [];
  const step = (opType: string, inputs: string[], attributes = {}) => {
    const name = `weight ${steps.length}`;
    steps.push({ name, opType, inputs, outputs: [name], attributes });
    return name;
  };
  const numbers = step('Cast', [integers], to);
  const laidOut = transposed ? step('Transpose', [numbers], { perm: { ints: [1, 0] } }) : numbers;
  const shifted = zeroPoint ? step('Sub', [laidOut, step('Cast', [zeroPoint], to)]) : laidOut;
  const output = step('Mul', [shifted, scale]);
  const constants = [integers, scale, ...(zeroPoint ? [zeroPoint] : [])];
  let all: Promise<Uint8Array> | undefined;
  return {
    dtype,
    rows,
    columns,
    async readRows(start, end) {
      all ??= open(context, node, { nodes: steps, constants, fed: [], output }, dtype).then(once);
      const width = (await all).byteLength / rows;
      return (await all).subarray(start * width, end * width);
    },
  };
}

/** The numbers that an evaluator gives without an input. */
async function once({ run, release }: Evaluator): Promise<Uint8Array> {
  const bytes = await run(new Map());
  await release();
  return bytes;
}

// MatMulNBits at accuracy level 4 rounds its input to 8 bits; without the attribute it computes in
// float32. Its bias is not part of the weight.
const WITHOUT_ROUNDING = { attributes: ['accuracy_level'], inputs: [5] };

interface Evaluator {
  run(feeds: Feeds): Promise<Uint8Array>;
  release(): Promise<void>;
}

/** One node of the model in a session of its own, its constants as initializers. */
function evaluate(
  context: WeightContext,
  node: Node,
  fed: readonly string[],
  dtype: FloatName,
  without: { attributes: string[]; inputs: number[] } = { attributes: [], inputs: [] },
): Promise<Evaluator> {
  const inputs = node.inputs.map((name, i) => (without.inputs.includes(i) ? '' : name));
  while (inputs.at(-1) === '') inputs.pop();
  const constants = inputs.filter((name) => name !== '' && !fed.includes(name));
  const output = node.outputs[0]!;
  const kept = [...node.attributes].filter(([name]) => !without.attributes.includes(name));
  const attributes = Object.fromEntries(kept.map(([name, value]) => [name, attributeValue(value)]));
  const nodes = [{ ...node, inputs, outputs: [output], attributes }];
  return open(context, node, { nodes, constants, fed, output }, dtype);
}

/** A computation of a session on constants, and on values that are fed. */
interface Computation {
  readonly nodes: readonly NewNode[];
  /** Values that `node` reads. */
  readonly constants: readonly string[];
  readonly fed: readonly string[];
  readonly output: string;
}

async function open(
  context: WeightContext,
  node: Node,
  { nodes, constants, fed, output }: Computation,
  dtype: FloatName,
): Promise<Evaluator> {
  if (dtype === 'float64') {
    throw new OnnxLoraError(
      'unsupported',
      `${nodeLabel(node)}: its weight dequantizes to ${dtype}, only types of 32 and 16 bits can be folded into`,
      { node: nodeLabel(node), hint: 'Merge into the model before quantization instead.' },
    );
  }
  const pieces = [
    ...constantRecords(context, node, constants),
    ...nodes.flatMap((one) => nodeRecord(one)),
    ...fed.flatMap((name) => record(GraphField.input, floatValue(name, wideType(dtype)))),
    ...record(GraphField.output, floatValue(output, wideType(dtype))),
  ];
  const session = await openSession(modelBytes(context.model, pieces));
  return {
    run: async (feeds) => {
      const values = (await session.run(feeds)).get(output)!.data as Float32Array | Uint16Array;
      if (dtype === 'bfloat16') return fromFloat32(dtype, values as Float32Array);
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    },
    release: () => session.release(),
  };
}

function attributeValue(attribute: {
  i: number | undefined;
  f: number | undefined;
  ints: readonly number[];
}): AttributeValue {
  if (attribute.i !== undefined) return { int: attribute.i };
  return attribute.f !== undefined ? { float: attribute.f } : { ints: attribute.ints };
}

// Every node of a weight may read a scale and a zero point, each through a Cast.
const MAX_VALUES = 4 * MAX_WEIGHT_STEPS;

/** The constants of these names, with the nodes that make them of stored tensors. */
function constantRecords(context: WeightContext, node: Node, names: readonly string[]): Piece[] {
  const { values, reader, model } = context;
  const done = new Map<string, Value | undefined>();
  const add = (reading: Node, name: string): Piece[] => {
    const value = values.resolve(reading.graph, name);
    if (done.has(name) && done.get(name) === value) return [];
    if (done.has(name) || done.size >= MAX_VALUES) throw notStored(node, name);
    done.set(name, value);
    const stored = storedTensor(values, reading.graph, name);
    if (stored) {
      const { tensor } = stored;
      const dtype = dtypeOf(tensor, model);
      const data =
        dtype === 'bfloat16'
          ? fromFloat32('float32', reader.float32(tensor))
          : reader.bytes(tensor);
      return initializerRecord({ name, dtype: wideType(dtype), dims: tensor.dims, data });
    }
    const made = value?.producer;
    const isKnown = made && (isStep(made) || isComputing(made) || made.opType === 'Constant');
    if (!isKnown) throw notStored(node, name);
    const inputs = made.inputs.filter((input) => input !== '');
    const attributes = Object.fromEntries(
      [...made.attributes].map(([key, { field }]) => [
        key,
        wideAttribute(key, { raw: model.source.read(field.value, field.end), captures: [] }),
      ]),
    );
    return [
      ...inputs.flatMap((input) => add(made, input)),
      ...nodeRecord({ ...made, outputs: [name], attributes }),
    ];
  };
  return names.flatMap((name) => add(node, name));
}

function notStored(node: Node, name: string): OnnxLoraError {
  return new OnnxLoraError(
    'unsupported',
    `${nodeLabel(node)}: its input ${name} is not made of constants of the file, so its weight cannot be folded into`,
    { node: nodeLabel(node), hint: 'Merge into the model before quantization instead.' },
  );
}

function floatValue(name: string, dtype: FloatName): Uint8Array {
  const elemType = dataTypeNumber(dtype);
  return onnx.ValueInfoProto.encode({ name, type: { tensorType: { elemType } } }).finish();
}

function modelBytes(model: Model, graph: readonly Piece[]): Uint8Array {
  const header = onnx.ModelProto.encode({
    irVersion: Math.max(4, model.irVersion),
    opsetImport: [
      { domain: '', version: standardOpset(model) },
      { domain: 'com.microsoft', version: 1 },
    ],
  }).finish();
  const pieces = record(ModelField.graph, ...graph);
  const bytes = Buffer.concat([header, ...(pieces as Uint8Array[])]);
  if (bytes.length !== header.length + totalLength(pieces)) throw new Error('not all in memory');
  return bytes;
}
