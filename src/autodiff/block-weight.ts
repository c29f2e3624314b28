/**
 * The weight of a MatMulNBits as a matrix of floats. Its packed bytes are a tensor of 4-bit or 8-bit
 * integers [N · blocks, block_size], so DequantizeLinear with a scale for each row gives what the
 * operator's product with an identity matrix would, bit for bit, in a fraction of the time.
 */
import type { GraphBuilder } from '../graph/builder.js';
import type { DataTypeName } from '../onnx/dtype.js';
import type { Piece } from '../onnx/edit.js';
import type { NewTensor } from '../onnx/encode.js';
import { elementCount } from '../onnx/model.js';
import type { OpBuilder } from './op-builder.js';
import type { NodeContext } from './rule.js';

/** The inputs of the operator; `''` for those that are left out. */
export interface BlockInputs {
  readonly weight: string;
  readonly scales: string;
  readonly zeros: string;
  readonly groups: string;
}

interface Blocks {
  readonly bits: 4 | 8;
  readonly size: number;
  /** A row of K has so many, the last one padded. */
  readonly perRow: number;
  readonly count: number;
}

/**
 * Wᵀ [N, K] by DequantizeLinear, in the type of the scales; undefined where the bytes cannot be read
 * that way: other numbers of bits, columns in an order of their own, weights that are computed.
 */
export function dequantizedBlocks(
  { c, int }: Pick<NodeContext, 'c' | 'int'>,
  { weight, scales, zeros, groups }: BlockInputs,
): string | undefined {
  const [k, n, bits] = [int('K', 0), int('N', 0), int('bits', 4)];
  if (groups !== '' || (bits !== 4 && bits !== 8)) return undefined;
  const size = int('block_size', 0);
  const perRow = Math.ceil(k / size);
  const blocks = { bits, size, perRow, count: n * perRow } as const;
  const codes = codesOf(c.graph, weight, blocks);
  const offset = codes && offsetOf(c, zeros, blocks);
  if (!codes || !offset) return undefined;
  const { dtype } = c.type(scales);
  const scale = c.reshape(scales, c.integers([blocks.count]), [blocks.count]);
  const numbers = dequantized(c, [codes, scale, ...offset.codes], dtype, blocks);
  const shifted = offset.value ? c.sub(numbers, shiftOf(c, offset.value, scale)) : numbers;
  const padded = perRow * size;
  const rows = c.reshape(shifted, c.integers([n, padded]), [n, padded]);
  return padded === k ? rows : firstColumns(c, rows, [n, k]);
}

/** The packed bytes as integers of their own type: another name for the same bytes of the file. */
function codesOf(
  graph: GraphBuilder,
  weight: string,
  { bits, size, count }: Blocks,
): string | undefined {
  const stored = graph.initializers.get(weight);
  if (stored?.dtype !== 'uint8' || elementCount(stored.dims) * 8 !== count * size * bits) {
    return undefined;
  }
  const { data } = stored;
  return initializerOnce(graph, {
    ...{ name: `${weight}/uint${bits}`, dtype: `uint${bits}` },
    ...{ dims: [count, size], data },
  });
}

interface Offset {
  /** The codes of 0, for the operator. */
  readonly codes: readonly string[];
  /** The zero point as a float, subtracted afterwards. */
  readonly value?: string;
}

function offsetOf(c: OpBuilder, zeros: string, blocks: Blocks): Offset | undefined {
  const { graph, types } = c;
  if (zeros !== '' && types.get(zeros)?.dtype !== 'uint8') return { codes: [], value: zeros };
  const codes = zeros === '' ? middles(blocks) : packedZeros(graph, zeros, blocks);
  if (!codes) return undefined;
  const { bits, size, count } = blocks;
  const name = zeros === '' ? `middle/${size}x${count}/uint${bits}` : `${zeros}/uint${bits}`;
  const tensor = { name, dtype: `uint${bits}`, dims: [count], data: codes } as const;
  return { codes: [initializerOnce(graph, tensor)] };
}

/** Without zero points the middle of the range stands for 0. */
function middles({ bits, count }: Blocks): Uint8Array {
  return new Uint8Array(Math.ceil((count * bits) / 8)).fill(bits === 4 ? 0x88 : 0x80);
}

/** Zero points without the half byte that pads each row of an odd number of them. */
function packedZeros(
  graph: GraphBuilder,
  zeros: string,
  { bits, perRow, count }: Blocks,
): NewTensor['data'] | undefined {
  const data = graph.initializers.get(zeros)?.data;
  if (!data || 'chunks' in data) return undefined;
  if (bits === 8 || perRow % 2 === 0) return data;
  const bytes = data instanceof Uint8Array ? data : data.source.read(data.start, data.end);
  const rowBytes = (perRow + 1) / 2;
  const packed = new Uint8Array(Math.ceil(count / 2));
  for (let i = 0; i < count; i++) {
    const [row, at] = [Math.floor(i / perRow), i % perRow];
    const code = (bytes[row * rowBytes + (at >> 1)]! >> (4 * (at & 1))) & 15;
    packed[i >> 1]! |= code << (4 * (i & 1));
  }
  return packed;
}

/** A layer that is used twice has its weight once. */
function initializerOnce(graph: GraphBuilder, tensor: NewTensor): string {
  const known = graph.initializers.get(tensor.name);
  if (known && isSame(known.data, tensor.data)) return tensor.name;
  const name = graph.fresh(tensor.name);
  graph.addInitializer({ ...tensor, name });
  return name;
}

function isSame(a: Piece, b: Piece): boolean {
  return (
    a === b || (a instanceof Uint8Array && b instanceof Uint8Array && Buffer.compare(a, b) === 0)
  );
}

function dequantized(
  c: OpBuilder,
  inputs: readonly string[],
  dtype: DataTypeName,
  { count, size }: Blocks,
): string {
  // Standard since opset 21 for integers of 4 bits, and ONNX Runtime's own before.
  const domain = c.graph.opset >= 21 ? '' : 'com.microsoft';
  const node = { opType: 'DequantizeLinear', domain, attributes: { axis: { int: 0 } } };
  return c.again(node, inputs, { dtype, shape: [count, size] });
}

/** `q · s - z · s`, in the order that the operator computes in. */
function shiftOf(c: OpBuilder, zeros: string, scale: string): string {
  const [count] = c.dims(scale);
  const flat = c.reshape(zeros, c.integers([Number(count)]), [count!]);
  return c.unsqueeze(c.mul(flat, scale), [1]);
}

function firstColumns(c: OpBuilder, value: string, [n, k]: readonly [number, number]): string {
  const bounds = [0, k, 1].map((bound) => c.integers([bound]));
  return c.op('Slice', [value, ...bounds], { dtype: c.type(value).dtype, shape: [n, k] });
}
