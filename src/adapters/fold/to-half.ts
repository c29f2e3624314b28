/** Matrices of float32 are stored as float16, with a Cast to float32 that has their name, as an edit. */
import { traceConstant } from '../../graph/constants.js';
import { NameAuthority } from '../../graph/names.js';
import type { ValueIndex } from '../../graph/uses.js';
import {
  byteLength,
  dataTypeNumber,
  findDataType,
  fromFloat32,
  toFloat32,
} from '../../onnx/dtype.js';
import { type NewNode, nodeRecord } from '../../onnx/encode.js';
import type { TensorPlace } from '../../onnx/external.js';
import { allGraphs, elementCount, type Model, type Node, type Tensor } from '../../onnx/model.js';
import { addInitializer, graphEdit } from '../../onnx/rewrite.js';
import { fitsItsData, type TensorReader } from '../../onnx/tensor.js';
import type { BlockEdit } from './to-blocks.js';

/** A tensor to store as float16. */
export interface HalfWeight {
  readonly place: TensorPlace;
  /** Name of the value that nodes read: afterwards the output of a Cast. */
  readonly name: string;
  /** Name of the tensor of float16. */
  readonly half: string;
  /** The nodes that multiply with it, or gather its rows. */
  readonly nodes: readonly Node[];
}

/** The inputs of operators that are weights. */
const WEIGHTS: Readonly<Record<string, readonly number[]>> = {
  Conv: [1],
  ConvTranspose: [1],
  Gather: [0],
  Gemm: [0, 1],
  GRU: [1, 2],
  LSTM: [1, 2],
  MatMul: [0, 1],
  RNN: [1, 2],
  'com.microsoft/Attention': [1],
  'com.microsoft/EmbedLayerNormalization': [2, 3, 4],
  'com.microsoft/FusedConv': [1],
  'com.microsoft/FusedGemm': [0, 1],
  'com.microsoft/FusedMatMul': [0, 1],
};

/**
 * The stored matrices and kernels of float32 that products and look-ups read. A bias or a table of
 * frequencies saves nothing and may not bear the rounding.
 */
export function halfWeights(
  model: Model,
  values: ValueIndex,
  reader: TensorReader,
): readonly HalfWeight[] {
  const found = new Map<Tensor, HalfWeight & { readonly nodes: Node[] }>();
  const names = new NameAuthority(model);
  for (const { node, input } of weightInputs(model)) {
    const constant = traceConstant(values, node.graph, input);
    if (!constant || constant.steps.some(({ opType }) => !PASSING.has(opType))) continue;
    const { tensor, graph, node: producer } = constant;
    const known = found.get(tensor);
    if (known) known.nodes.push(node);
    const isDefault = constant.overridable && model.irVersion >= 4;
    if (known || isDefault || !isMatrix(tensor) || !isInRange(reader, tensor)) continue;
    const name = producer ? producer.outputs[0]! : tensor.name;
    const place = { tensor, graph, node: producer, attribute: producer?.attributes.get('value') };
    found.set(tensor, { place, name, half: names.fresh(`${name}_fp16`), nodes: [node] });
  }
  return [...found.values()];
}

const PASSING = new Set(['Identity', 'Transpose']);

function* weightInputs({ graph: main }: Model): Generator<{ node: Node; input: string }> {
  for (const graph of allGraphs(main)) {
    for (const node of graph.nodes) {
      const { domain, opType } = node;
      const indices = WEIGHTS[domain === '' ? opType : `${domain}/${opType}`] ?? [];
      for (const index of indices) yield { node, input: node.inputs[index] ?? '' };
    }
  }
}

function isMatrix(tensor: Tensor): boolean {
  const isStored = tensor.data.kind !== 'segmented' && fitsItsData(tensor);
  const isFloat = findDataType(tensor.dataType) === 'float32';
  return isFloat && isStored && tensor.dims.filter((size) => size > 1).length >= 2;
}

/** The least number that float16 rounds to infinity. */
const TOO_LARGE = 65520;

function isInRange(reader: TensorReader, tensor: Tensor): boolean {
  return numbersOf(reader, tensor).every((value) => !(Math.abs(value) >= TOO_LARGE));
}

/** The numbers of such a tensor. */
export function numbersOf(reader: TensorReader, tensor: Tensor): Float32Array {
  return toFloat32('float32', reader.bytes(tensor), elementCount(tensor.dims));
}

/** Stores these weights as float16. */
export function toHalf(edited: BlockEdit, weights: readonly HalfWeight[]): void {
  for (const weight of weights) {
    addHalf(edited, weight);
    putCast(edited, weight);
  }
}

function addHalf({ model, reader, root, dataFile }: BlockEdit, { place, half }: HalfWeight): void {
  const { tensor } = place;
  const made = {
    ...{ name: half, dtype: 'float16' as const, dims: tensor.dims },
    data: {
      length: byteLength('float16', elementCount(tensor.dims)),
      *chunks() {
        yield fromFloat32('float16', numbersOf(reader, tensor));
      },
    },
  };
  if (tensor.data.kind !== 'external') {
    addInitializer(root, model, made);
    return;
  }
  dataFile.add(made);
  dataFile.drop(place);
}

/** Takes the tensor's place by name, so that no reader changes, in bodies neither. */
function putCast({ model, root }: BlockEdit, { place, name, half }: HalfWeight): void {
  const { tensor, graph, node } = place;
  const edit = graphEdit(root, graph);
  const cast = nodeRecord(castOf(half, name));
  if (node) {
    edit.replace(node.field, ...cast);
    return;
  }
  edit.remove(tensor.field);
  edit.insertBefore(graph.nodes[0]!.field, ...cast);
  const input = model.irVersion < 4 && graph.inputs.find((one) => one.name === tensor.name);
  if (input) edit.remove(input.field);
}

function castOf(half: string, name: string): NewNode {
  return {
    ...{ name: `${half}/Cast`, opType: 'Cast', inputs: [half], outputs: [name] },
    attributes: { to: { int: dataTypeNumber('float32') } },
  };
}
