/** The integers that a quantized weight is stored in: their range, their groups, and their place in the bytes. */
import { storedTensor } from '../../graph/constants.js';
import { finalReaders } from '../../graph/readers.js';
import { type DataTypeName, findDataType, toFloat64, toIntegers } from '../../onnx/dtype.js';
import type { TensorPlace } from '../../onnx/external.js';
import { elementCount, type Node, type Tensor } from '../../onnx/model.js';
import type { LinearLayer } from '../targets/index.js';
import type { WeightContext } from './dequantize.js';
import type { CodeRange } from './least-squares.js';

/** A weight in integers, seen as W [in, out]. */
export interface StoredCodes {
  readonly codes: TensorPlace;
  readonly scales: TensorPlace;
  readonly scaleDtype: DataTypeName;
  /** The group of an element of W: those that share a scale. */
  groupOf(row: number, column: number): number;
  rangeOf(group: number): CodeRange;
  /** The bytes of the tensor from the integers of W, row by row. */
  pack(codes: Int16Array): Uint8Array;
}

/** The integers of a layer's weight, or why they cannot be written anew. */
export function storedCodes(
  context: WeightContext,
  layers: readonly LinearLayer[],
): StoredCodes | string {
  const layer = layers[0]!;
  if (layer.node.opType === 'MatMulBnb4') return 'is in the bitsandbytes format';
  const parts = layer.product
    ? partsOfProduct(layer)
    : layer.weight.constant
      ? partsOfDequantize(context, layer)
      : partsOfBlocks(layer);
  if (typeof parts === 'string') return parts;
  return assembled(context, layers, parts);
}

/** Names of codes, scales and zero points, and their layout. */
interface Parts {
  readonly reader: Node;
  readonly codes: string;
  readonly scales: string;
  readonly zeros: string;
  readonly layout: Layout;
}

interface Layout {
  /** MatMulNBits: codes of that many bits in blocks of each column; else one code an element. */
  readonly blocks?: { readonly bits: number; readonly size: number };
  /** The stored matrix is [out, in]. */
  readonly transposed: boolean;
  /** DequantizeLinear: the axis of the stored matrix that scales lie along, and the length of blocks. */
  readonly axis?: number;
  readonly blockSize?: number;
}

function partsOfProduct({ product, weight }: LinearLayer): Parts | string {
  const { node, integers, scale, zeroPoint } = product!;
  const axis = weight.transposed ? 0 : 1;
  // QGemm adds its C in units of the product's scale.
  if (node.opType === 'QGemm' && (node.inputs[6] ?? '') !== '') {
    return 'has a bias that is stored in units of the scale of its weight';
  }
  const layout = { transposed: weight.transposed, axis };
  return { reader: node, codes: integers, scales: scale, zeros: zeroPoint, layout };
}

function partsOfBlocks({ node }: LinearLayer): Parts | string {
  const [, codes = '', scales = '', zeros = '', groups = ''] = node.inputs;
  if (groups !== '') return 'orders its groups by an index (g_idx)';
  const attribute = (name: string, otherwise: number) => node.attributes.get(name)?.i ?? otherwise;
  const blocks = { bits: attribute('bits', 4), size: attribute('block_size', 32) };
  return { reader: node, codes, scales, zeros, layout: { blocks, transposed: true } };
}

function partsOfDequantize(context: WeightContext, layer: LinearLayer): Parts | string {
  const { steps, tensor } = layer.weight.constant!;
  const [first, ...others] = steps;
  const computes = others.some(({ opType }) => !['Identity', 'Transpose', 'Cast'].includes(opType));
  if (first?.opType !== 'DequantizeLinear' || computes) {
    return `is computed of ${tensor.name} by ${steps.map(({ opType }) => opType).join(', ')}`;
  }
  if (tensor.dims.length !== 2) return `is stored in ${tensor.dims.length} axes`;
  const readers = finalReaders(context.values, layer.weight.constant!);
  if (readers.length > 1) return `is read by ${readers.length} nodes`;
  const [codes = '', scales = '', zeros = ''] = first.inputs;
  const attribute = (name: string, otherwise: number) => first.attributes.get(name)?.i ?? otherwise;
  const axis = (attribute('axis', 1) + 2) % 2;
  const blockSize = attribute('block_size', 0);
  const layout = { transposed: layer.weight.transposed, axis, blockSize };
  return { reader: first, codes, scales, zeros, layout };
}

function assembled(
  { values, reader }: WeightContext,
  layers: readonly LinearLayer[],
  { reader: node, layout, ...names }: Parts,
): StoredCodes | string {
  const place = (name: string) => storedTensor(values, node.graph, name);
  const [codes, scales] = [place(names.codes), place(names.scales)];
  const zeros = names.zeros === '' ? undefined : place(names.zeros);
  if (!codes || !scales || (names.zeros !== '' && !zeros))
    return 'is made by nodes of its constants';
  for (const name of [names.codes, names.scales]) {
    const uses = values.resolve(node.graph, name)?.uses ?? [];
    if (uses.length > layers.length) return `shares ${name} with other nodes`;
  }
  const scaleDtype = findDataType(scales.tensor.dataType)!;
  const { in: rows, out: columns } = layers[0]!.weight;
  const size = { rows, columns };
  const dtype = findDataType(codes.tensor.dataType)!;
  if (!layout.blocks && !RANGES[dtype]) return `is stored as ${dtype}`;
  const bytesOf = ({ tensor }: TensorPlace) => reader.bytes(tensor);
  const shared = { codes, scales, scaleDtype };
  const { blocks } = layout;
  return blocks
    ? {
        ...shared,
        ...inBlocks(size, blocks, zeros && numbersOf(zeros.tensor, bytesOf(zeros), blocks)),
      }
    : { ...shared, ...inMatrix(size, layout, { codes, scales, zeros }, bytesOf) };
}

interface Size {
  readonly rows: number;
  readonly columns: number;
}

type Form = Pick<StoredCodes, 'groupOf' | 'rangeOf' | 'pack'>;

/** MatMulNBits: [columns, blocks, bytes of a block]. */
function inBlocks(
  { rows, columns }: Size,
  { bits, size }: { bits: number; size: number },
  zeros: ((column: number, block: number, count: number) => number) | undefined,
): Form {
  const count = Math.ceil(rows / size);
  const zeroOf = (column: number, block: number) =>
    zeros?.(column, block, count) ?? 2 ** (bits - 1);
  const blob = (size * bits) / 8;
  return {
    groupOf: (row, column) => column * count + Math.floor(row / size),
    rangeOf: (group) => ({
      ...{ low: 0, high: 2 ** bits - 1, signed: true },
      zero: zeroOf(Math.floor(group / count), group % count),
    }),
    pack(codes) {
      const bytes = new Uint8Array(columns * count * blob);
      for (let column = 0; column < columns; column++) {
        for (let row = 0; row < count * size; row++) {
          const block = Math.floor(row / size);
          const code =
            row < rows ? codes[row * columns + column]! : Math.round(zeroOf(column, block));
          const bit = (row % size) * bits;
          bytes[(column * count + block) * blob + (bit >> 3)]! |= code << (bit & 7);
        }
      }
      return bytes;
    },
  };
}

/** Zero points of MatMulNBits: packed as the codes are, each column from a byte of its own, or floats. */
function numbersOf({ dataType, dims }: Tensor, bytes: Uint8Array, { bits }: { bits: number }) {
  const dtype = findDataType(dataType)!;
  if (dtype !== 'uint8') {
    const numbers = toFloat64(dtype, bytes, elementCount(dims));
    return (column: number, block: number, count: number) => numbers[column * count + block]!;
  }
  return (column: number, block: number, count: number) => {
    const bit = block * bits;
    const at = column * Math.ceil((count * bits) / 8) + (bit >> 3);
    return (bytes[at]! >> (bit & 7)) & (2 ** bits - 1);
  };
}

const RANGES: Readonly<Partial<Record<DataTypeName, readonly [low: number, high: number]>>> = {
  int4: [-8, 7],
  uint4: [0, 15],
  int8: [-128, 127],
  uint8: [0, 255],
};

/** One code an element, a scale for all, for each place on an axis, or for each block along it. */
function inMatrix(
  { rows, columns }: Size,
  { transposed, axis = 1, blockSize = 0 }: Layout,
  places: { codes: TensorPlace; scales: TensorPlace; zeros: TensorPlace | undefined },
  bytesOf: (place: TensorPlace) => Uint8Array,
): Form {
  const dtype = findDataType(places.codes.tensor.dataType)!;
  const scaleDims = places.scales.tensor.dims;
  const at = (row: number, column: number) =>
    (transposed ? [column, row] : [row, column]) as [number, number];
  const groupOf = (row: number, column: number) => {
    if (elementCount(scaleDims) === 1) return 0;
    const place = at(row, column);
    if (blockSize === 0) return place[axis]!;
    place[axis] = Math.floor(place[axis]! / blockSize);
    return place[0] * scaleDims[1]! + place[1];
  };
  const { zeros } = places;
  const points = zeros && codesOf(zeros.tensor, bytesOf(zeros));
  const [low, high] = rangeIn(dtype, codesOf(places.codes.tensor, bytesOf(places.codes)));
  const width = transposed ? rows : columns;
  return {
    groupOf,
    rangeOf: (group) => ({
      low,
      high,
      signed: false,
      zero: points?.[points.length === 1 ? 0 : group] ?? 0,
    }),
    pack(codes) {
      const laid = new Int16Array(codes.length);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const [y, x] = at(row, column);
          laid[y * width + x] = codes[row * columns + column]!;
        }
      }
      return dtype.endsWith('4') ? nibbles(laid) : Uint8Array.from(laid, (code) => code & 255);
    },
  };
}

/**
 * The integers that may be written. Quantizers leave out a bit where processors would run over (reduce_range);
 * what they left out stays out.
 */
function rangeIn(dtype: DataTypeName, codes: ArrayLike<number>): readonly [number, number] {
  const [low, high] = RANGES[dtype] ?? [0, 0];
  const reduced = dtype === 'int8' ? [-64, 64] : dtype === 'uint8' ? [0, 128] : [low, high];
  const fits = Array.prototype.every.call(
    codes,
    (code: number) => code >= reduced[0]! && code <= reduced[1]!,
  );
  return fits ? [reduced[0]!, reduced[1]!] : [low, high];
}

function codesOf({ dataType, dims }: Tensor, bytes: Uint8Array): ArrayLike<number> {
  return Array.from(toIntegers(findDataType(dataType)!, bytes, elementCount(dims)), Number);
}

/** Two codes a byte, the first in its lower half. */
function nibbles(codes: Int16Array): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(codes.length / 2));
  for (const [i, code] of codes.entries()) bytes[i >> 1]! |= (code & 15) << (4 * (i & 1));
  return bytes;
}
