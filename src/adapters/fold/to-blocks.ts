/** Products with a stored matrix of floats become MatMulNBits, as an edit. */
import { NameAuthority } from '../../graph/names.js';
import type { ValueIndex } from '../../graph/uses.js';
import type { NewDataFile } from '../../onnx/data-file.js';
import { type FloatName, toFloat64 } from '../../onnx/dtype.js';
import type { Computed, MessageEdit } from '../../onnx/edit.js';
import { type NewTensor, record } from '../../onnx/encode.js';
import { ModelField } from '../../onnx/fields.js';
import type { Model, Node } from '../../onnx/model.js';
import { onnx } from '../../onnx/proto.js';
import { addInitializer, graphEdit } from '../../onnx/rewrite.js';
import type { TensorReader } from '../../onnx/tensor.js';
import { findLinearLayers, type LinearLayer } from '../targets/index.js';
import { isComputed } from '../targets/weight.js';
import {
  type BlockCodes,
  type BlockFormat,
  blockSizes,
  type Matrix,
  quantizeBlocks,
} from './block-codes.js';
import { change } from './float-product.js';

/** A model that is being edited, with the file for new tensors of those that are outside of it. */
export interface BlockEdit {
  readonly model: Model;
  readonly values: ValueIndex;
  readonly reader: TensorReader;
  readonly root: MessageEdit;
  readonly dataFile: NewDataFile;
}

/** The layers that can be MatMulNBits: MatMul of an activation and a matrix that is stored as it is. */
export function blockLayers(model: Model, values: ValueIndex): LinearLayer[] {
  return findLinearLayers(model, values).filter((finding): finding is LinearLayer => {
    if ('refusal' in finding || finding.node.opType !== 'MatMul') return false;
    const { weight } = finding;
    const isPlain =
      weight.constant?.steps.length === 0 && !weight.transposed && !isComputed(weight);
    return isPlain && weight.input === 1 && ['float32', 'float16'].includes(weight.dtype);
  });
}

/** The numbers of such a layer. */
export function matrixOf(reader: TensorReader, { weight }: LinearLayer): Matrix {
  const { in: rows, out: columns } = weight;
  const dtype = weight.storedDtype as FloatName;
  const values = toFloat64(dtype, reader.bytes(weight.constant!.tensor), rows * columns);
  return { dtype, rows, columns, values };
}

/** Lets these layers read integers. @returns the layers */
export function toBlocks(edited: BlockEdit, format: BlockFormat): LinearLayer[] {
  const { model, values, root } = edited;
  const layers = blockLayers(model, values);
  const names = new NameAuthority(model);
  const made = new Map<unknown, string[]>();
  for (const layer of layers) {
    const { constant } = layer.weight;
    const inputs = made.get(constant!.tensor) ?? addTensors(edited, layer, format, names);
    made.set(constant!.tensor, inputs);
    const { in: K, out: N } = layer.weight;
    const numbers = { K, N, bits: format.bits, block_size: format.blockSize };
    change({ root, model }, layer, {
      ...{ opType: 'MatMulNBits', domain: DOMAIN, inputs: [layer.input, ...inputs] },
      attributes: Object.fromEntries(Object.entries(numbers).map(([key, int]) => [key, { int }])),
    });
  }
  removeUnread(edited, layers);
  if (layers.length > 0) importDomain(root, model);
  return layers;
}

const DOMAIN = 'com.microsoft';

function addTensors(
  { model, reader, root, dataFile }: BlockEdit,
  layer: LinearLayer,
  format: BlockFormat,
  names: NameAuthority,
): string[] {
  const { weight } = layer;
  const { tensor } = weight.constant!;
  const dtype = weight.storedDtype as FloatName;
  const { bits, blockSize, symmetric } = format;
  const sizes = blockSizes({ dtype, rows: weight.in, columns: weight.out }, format);
  const count = Math.ceil(weight.in / blockSize);
  const zeroBytes = Math.ceil((count * bits) / 8);
  let all: BlockCodes | undefined;
  const part = (key: keyof BlockCodes): Computed => ({
    length: sizes[key],
    *chunks() {
      all ??= quantizeBlocks(matrixOf(reader, layer), format);
      yield all[key]!;
    },
  });
  const from = tensor.name || weight.name;
  const tensors: NewTensor[] = [
    {
      name: `${from}_Q${bits}`,
      dtype: 'uint8',
      dims: [weight.out, count, (blockSize * bits) / 8],
      data: part('codes'),
    },
    { name: `${from}_scales`, dtype, dims: [weight.out, count], data: part('scales') },
    ...(symmetric
      ? []
      : [
          {
            name: `${from}_zero_points`,
            dtype: 'uint8' as const,
            dims: [weight.out, zeroBytes],
            data: part('zeros'),
          },
        ]),
  ];
  return tensors.map((one) => {
    const named = { ...one, name: names.fresh(one.name) };
    if (tensor.data.kind === 'external') dataFile.add(named);
    else addInitializer(root, model, named);
    return named.name;
  });
}

/** Removes the weights that only these layers read. */
function removeUnread({ values, root, dataFile }: BlockEdit, layers: readonly LinearLayer[]): void {
  const readers = new Set<Node | undefined>(layers.map(({ node }) => node));
  for (const { node, weight } of layers) {
    const value = values.resolve(node.graph, weight.name);
    if (!value || value.isInput || !value.uses.every((use) => readers.has(use.node))) continue;
    const stored = value.initializer ?? value.producer;
    if (stored) graphEdit(root, value.graph).remove(stored.field);
    if (weight.constant!.tensor.data.kind === 'external') dataFile.drop(weight.constant!);
  }
}

function importDomain(root: MessageEdit, { opsets }: Model): void {
  if (opsets.some(({ domain }) => domain === DOMAIN)) return;
  const bytes = onnx.OperatorSetIdProto.encode({ domain: DOMAIN, version: 1 }).finish();
  root.append(...record(ModelField.opsetImport, bytes));
}
