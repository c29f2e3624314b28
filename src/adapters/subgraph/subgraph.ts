/**
 * The nodes of an adapter beside its layer: plain ONNX in the model's own opset.
 *
 * For a grid, with the leading axes of X flattened to N:
 *
 *     X [N, in] -> [N, Kin, in/Kin] -> [Kin, N, in/Kin]
 *     H = MatMul(X, A)    [Kin, N, Kout·r] -> [Kin, N, Kout, r] -> [Kout, N, Kin, r] -> [Kout, N, Kin·r]
 *     D = MatMul(H, s·B)  [Kout, N, out/Kout] -> [N, Kout, out/Kout] -> the shape of Y
 *     Y + D
 *
 * For one block it is two MatMuls, and steps that would do nothing are left out throughout. The
 * scale is multiplied into B: both are constants, so a runtime does it once, when it loads.
 */
import type { NameAuthority } from '../../graph/names.js';
import type { FloatName } from '../../onnx/dtype.js';
import {
  isPlain,
  layerColumns,
  OPEN_RANK,
  type Structure,
  stackedRank,
} from '../structure/structure.js';
import type { LinearLayer, OpenGeometry, OpenLayer } from '../targets/index.js';
import { isDequantized } from '../targets/weight.js';
import { wideFactor, wideRows } from './part.js';
import { stackedA, stackedB } from './stacked.js';
import { type Subgraph, SubgraphBuilder } from './subgraph-builder.js';
import type { AdapterTensors } from './tensors.js';

/** A layer for an adapter, and what the adapter is made of. */
export interface AdaptedLayer<L extends LinearLayer = LinearLayer> {
  readonly layer: L;
  readonly structure: Structure;
  readonly tensors: AdapterTensors;
}

/** A place for an adapter. */
export interface AdapterPlace<L extends LinearLayer = OpenLayer> extends AdaptedLayer<L> {
  /** The value that it adds to: the layer's own output under its new name, or its weight. */
  readonly base: string;
}

/** Writes what an adapter adds to a layer's output. */
export type Change = (builder: SubgraphBuilder, place: AdapterPlace) => string;

/** Writes what an adapter adds to a layer's weight, laid out and typed as the node reads it. */
export type WeightChange = (builder: SubgraphBuilder, adapted: AdaptedLayer) => string;

/**
 * The nodes that compute `output = base + change`.
 * @param output the name that consumers read
 */
export function adapterSubgraph<L extends LinearLayer>(
  change: (builder: SubgraphBuilder, place: AdapterPlace<L>) => string,
  place: AdapterPlace<L>,
  at: { prefix: string; output: string },
  context: { names: NameAuthority; opset: number },
): Subgraph {
  const builder = new SubgraphBuilder(at.prefix, context.names, context.opset);
  builder.nodeTo(at.output, 'add', 'Add', [place.base, change(builder, place)]);
  return builder;
}

/** `X · ΔW` */
export const product: Change = (builder, { layer, structure, tensors, base }) => {
  const { dtype } = layer.weight;
  if (!isChannels(layer.geometry)) {
    return matrixDelta(builder, layer, layer.geometry, structure, tensors, base);
  }
  const factors = factorsIn(dtype, builder, tensors);
  const filled = neverEmpty(builder, structure, dtype, factors);
  return channelDelta(builder, layer.input, layer.geometry, structure, filled);
};

type Channels = Extract<OpenGeometry, { kind: 'channels' }>;
type Matrix = Extract<OpenGeometry, { kind: 'matrix' }>;

function isChannels(geometry: OpenGeometry): geometry is Channels {
  return geometry.kind === 'channels';
}

/** Value names of the factors; `b` and `generalB` carry the scale. */
interface Factors {
  readonly a: string;
  readonly b: string;
  readonly generalA: string | undefined;
  readonly generalB: string | undefined;
}

/** The factors in the type that the layer computes in. Casts of constants cost nothing at run time. */
function factorsIn(
  dtype: FloatName,
  b: SubgraphBuilder,
  tensors: AdapterTensors,
  stack?: Structure,
): Factors {
  const cast = (leaf: string, value: string) => b.cast(leaf, value, tensors.dtype, dtype);
  const { generalA, generalB, scale } = tensors;
  const scaledBy = (leaf: string, value: string) =>
    scale === undefined ? value : b.node(leaf, 'Mul', [value, scale]);
  const scaled = scaledBy('b_scaled', tensors.b);
  const factorA = stack ? stackedA(b, tensors.a, stack, tensors.dtype) : tensors.a;
  const factorB = stack ? stackedB(b, scaled, stack, tensors.dtype) : scaled;
  return {
    a: cast('a_cast', factorA),
    b: cast('b_cast', factorB),
    generalA: generalA && cast('general_a_cast', generalA),
    generalB: generalB && cast('general_b_cast', scaledBy('general_b_scaled', generalB)),
  };
}

/**
 * A grid can also be computed as one block of rank Kin·Kout·r with zeros in its factors: more
 * arithmetic, but the nodes around the layer see two MatMuls and nothing else. That matters in half
 * precision, where runtimes drop roundings between products and keep them at a Reshape: only this
 * form leaves the base's own numbers untouched. It also is the short way for a weight on the left.
 */
function isStacked(geometry: Matrix, dtype: FloatName): boolean {
  const leftHanded = geometry.inputColumns && geometry.outputColumns;
  return leftHanded || dtype === 'float16' || dtype === 'bfloat16';
}

function matrixDelta(
  b: SubgraphBuilder,
  layer: LinearLayer,
  geometry: Matrix,
  structure: Structure,
  tensors: AdapterTensors,
  base: string,
): string {
  const { dtype } = layer.weight;
  const oneBlock = isPlain(structure) || isStacked(geometry, dtype);
  const stack = oneBlock && !isPlain(structure) ? structure : undefined;
  const factors = wideFactors(b, structure, dtype, factorsIn(dtype, b, tensors, stack), oneBlock);
  const { inputColumns, outputColumns } = geometry;
  if (inputColumns && outputColumns) {
    const filled = geometry.flat ? factors : neverEmpty(b, structure, dtype, factors);
    return leftHandedDelta(b, layer.input, filled);
  }
  // ONNX Runtime turns a DequantizeLinear and its MatMul into one approximate kernel, unless it has
  // drawn an Add after the MatMul into it before. A second reader of the base keeps it from that.
  const readsBase = isDequantized(layer.weight);
  if (geometry.flat && !readsBase) {
    return flatDelta(b, layer.input, geometry, oneBlock ? undefined : structure, factors);
  }
  const input = rowsOf(b, layer.input, structure.in, geometry);
  const delta = oneBlock
    ? plainDelta(b, input, factors)
    : wideRows(b, gridDelta(b, input, structure, factors), structure);
  const general = generalDelta(b, input, factors);
  const sum = (value: string) => (general ? b.node('sum', 'Add', [value, general]) : value);
  if (!inputColumns && !outputColumns) {
    const value = sum(oneBlock ? delta : likeBase(b, delta, base));
    return oneBlock && readsBase ? likeBase(b, value, base) : value;
  }
  const rows = sum(oneBlock ? delta : likeRows(b, delta, input, layerColumns(structure)));
  return likeBase(b, outputColumns ? b.transpose('columns', rows, [0, 2, 1]) : rows, base);
}

/**
 * Between matrices every layout is one Transpose away from rows, and no shape has to be read from
 * the layer's output: ONNX Runtime fuses a Gemm with the nodes around it only while it has a single
 * reader, and another fusion would change the base's own rounding.
 * @param grid undefined where the factors are those of one block
 */
function flatDelta(
  b: SubgraphBuilder,
  input: string,
  { inputColumns, outputColumns }: Matrix,
  grid: Structure | undefined,
  factors: Factors,
): string {
  const x = inputColumns ? b.transpose('rows', input, [1, 0]) : input;
  const delta = grid
    ? flatRows(b, gridDelta(b, x, grid, factors), grid)
    : plainDelta(b, x, factors);
  const general = generalDelta(b, x, factors);
  const rows = general ? b.node('sum', 'Add', [delta, general]) : delta;
  return outputColumns ? b.transpose('columns', rows, [1, 0]) : rows;
}

function flatRows(b: SubgraphBuilder, delta: string, grid: Structure): string {
  return grid.part ? wideRows(b, delta, grid) : b.reshape('d_matrix', delta, [-1, grid.out]);
}

/** Factors whose products are as wide as the layer; the blocks of a grid stay as they are. */
function wideFactors(
  b: SubgraphBuilder,
  s: Structure,
  dtype: FloatName,
  factors: Factors,
  oneBlock: boolean,
): Factors {
  if (!s.part) return factors;
  const { generalB } = factors;
  return {
    ...factors,
    b: oneBlock ? wideFactor(b, 'b_wide', factors.b, stackedRank(s), s, dtype) : factors.b,
    generalB: generalB && wideFactor(b, 'general_b_wide', generalB, s.hybridRank, s, dtype),
  };
}

function plainDelta(b: SubgraphBuilder, x: string, factors: Factors): string {
  return b.node('d', 'MatMul', [b.node('h', 'MatMul', [x, factors.a]), factors.b]);
}

/** `Y = Wᵀ · X`: with transposed factors it is two MatMuls again. */
function leftHandedDelta(b: SubgraphBuilder, x: string, factors: Factors): string {
  const pair = (prefix: string, first: string, second: string) => {
    const at = b.transpose(`${prefix}at`, first, [1, 0]);
    const bt = b.transpose(`${prefix}bt`, second, [1, 0]);
    return b.node(`${prefix}d`, 'MatMul', [bt, b.node(`${prefix}h`, 'MatMul', [at, x])]);
  };
  const delta = pair('', factors.a, factors.b);
  if (!factors.generalA || !factors.generalB) return delta;
  return b.node('sum', 'Add', [delta, pair('general_', factors.generalA, factors.generalB)]);
}

/**
 * Factors of an open rank with one of zeros more. ONNX Runtime leaves the output unwritten where a
 * convolution has no input channels, and all but the first of a batch in a product [m, 0] · [b, 0, n].
 */
function neverEmpty(b: SubgraphBuilder, s: Structure, dtype: FloatName, factors: Factors): Factors {
  if (s.blockRank !== OPEN_RANK) return factors;
  const padded = (leaf: string, factor: string, dims: number[], axis: number) => {
    const zeros = b.zeros(`${leaf}_zeros`, dims, dtype);
    return b.node(`${leaf}_padded`, 'Concat', [factor, zeros], { axis: { int: axis } });
  };
  return {
    ...factors,
    a: padded('a', factors.a, [s.in, 1], 1),
    b: padded('b', factors.b, [1, s.out], 0),
  };
}

/** The input with its features last: as it is, or [L, n, in] where they are not. */
function rowsOf(b: SubgraphBuilder, input: string, features: number, geometry: Matrix): string {
  const { inputColumns, outputColumns } = geometry;
  if (!inputColumns && !outputColumns) return input;
  if (inputColumns) {
    const size = b.integers('features', [-1, features]);
    const count = b.shapeSlice('count', input, -1, TO_THE_END);
    const shape = b.node('x_shape', 'Concat', [size, count], { axis: { int: 0 } });
    return b.transpose('rows', b.node('x', 'Reshape', [input, shape]), [0, 2, 1]);
  }
  const count = b.shapeSlice('count', input, -2, TO_THE_END);
  const free = b.integers('free', [-1]);
  const shape = b.node('x_shape', 'Concat', [free, count], { axis: { int: 0 } });
  return b.node('rows', 'Reshape', [input, shape]);
}

// Slices end here when they mean "to the end".
const TO_THE_END = 2 ** 31 - 1;

/** [N, Kout, out/Kout] */
function gridDelta(
  b: SubgraphBuilder,
  x: string,
  s: Structure,
  { a, b: scaledB }: Factors,
): string {
  const [kIn, kOut] = s.grid;
  const blocks =
    kIn > 1
      ? b.transpose('x_blocks', b.reshape('x_split', x, [-1, kIn, s.in / kIn]), [1, 0, 2])
      : b.reshape('x_blocks', x, [1, -1, s.in]);
  const h = b.node('h', 'MatMul', [blocks, a]);
  const d = b.node('d', 'MatMul', [regroup(b, h, s), scaledB]);
  return kOut > 1 ? b.transpose('d_rows', d, [1, 0, 2]) : d;
}

/** Makes a group for each output block of a group for each input block. */
function regroup(b: SubgraphBuilder, h: string, s: Structure): string {
  const [kIn, kOut] = s.grid;
  const r = s.blockRank;
  if (s.structure === 'diagonal') return h;
  if (kOut === 1)
    return b.reshape('h_out', b.transpose('h_turned', h, [1, 0, 2]), [1, -1, kIn * r]);
  if (kIn === 1) return b.transpose('h_out', b.reshape('h_split', h, [-1, kOut, r]), [1, 0, 2]);
  const split = b.reshape('h_split', h, [kIn, -1, kOut, r]);
  return b.reshape('h_out', b.transpose('h_turned', split, [2, 1, 0, 3]), [kOut, -1, kIn * r]);
}

function generalDelta(b: SubgraphBuilder, x: string, factors: Factors): string | undefined {
  const { generalA, generalB } = factors;
  if (!generalA || !generalB) return undefined;
  return b.node('general_d', 'MatMul', [b.node('general_h', 'MatMul', [x, generalA]), generalB]);
}

/** A value in the shape of the layer's output. */
export function likeBase(b: SubgraphBuilder, value: string, base: string): string {
  return b.reshapeTo('delta', value, b.node('y_shape', 'Shape', [base]));
}

function likeRows(b: SubgraphBuilder, value: string, rows: string, out: number): string {
  const leading = b.shapeSlice('leading', rows, 0, 2);
  const size = b.integers('out_features', [out]);
  const shape = b.node('rows_shape', 'Concat', [leading, size], { axis: { int: 0 } });
  return b.reshapeTo('d_matrix', value, shape);
}

/** Two 1x1 convolutions, grouped where the grid has blocks. */
function channelDelta(
  b: SubgraphBuilder,
  x: string,
  geometry: Channels,
  s: Structure,
  factors: Factors,
): string {
  const [kIn, kOut] = s.grid;
  const conv = new ConvBuilder(b, geometry);
  const columns = s.structure === 'diagonal' ? s.blockRank : kOut * s.blockRank;
  const rows = s.structure === 'diagonal' ? s.blockRank : kIn * s.blockRank;
  const h = conv.first('h', x, factors.a, [kIn, s.in / kIn, columns], isPlain(s));
  const d = conv.second(
    'd',
    regroupChannels(b, h, s),
    factors.b,
    [kOut, rows, s.out / kOut],
    isPlain(s),
  );
  if (!factors.generalA || !factors.generalB) return d;
  const gh = conv.first('general_h', x, factors.generalA, [1, s.in, s.hybridRank], true);
  const gd = conv.second('general_d', gh, factors.generalB, [1, s.hybridRank, s.out], true);
  return b.node('sum', 'Add', [d, gd]);
}

function regroupChannels(b: SubgraphBuilder, h: string, s: Structure): string {
  const [kIn, kOut] = s.grid;
  const r = s.blockRank;
  if (s.structure === 'diagonal' || kIn === 1 || kOut === 1) return h;
  const order: number[] = [];
  for (let j = 0; j < kOut; j++) {
    for (let n = 0; n < kIn; n++) for (let i = 0; i < r; i++) order.push((n * kOut + j) * r + i);
  }
  return b.node('h_out', 'Gather', [h, b.integers('h_order', order)], { axis: { int: 1 } });
}

class ConvBuilder {
  constructor(
    private readonly b: SubgraphBuilder,
    private readonly geometry: Channels,
  ) {}

  /** The convolution that stands where the layer's own one does, with its strides. */
  first(leaf: string, x: string, factor: string, shape: Shape3, plain: boolean): string {
    return this.conv(leaf, x, factor, shape, plain, this.geometry.strides);
  }

  second(leaf: string, x: string, factor: string, shape: Shape3, plain: boolean): string {
    return this.conv(leaf, x, factor, shape, plain, []);
  }

  private conv(
    leaf: string,
    x: string,
    factor: string,
    [groups, from, to]: Shape3,
    plain: boolean,
    strides: readonly number[],
  ): string {
    const ones = Array<number>(this.geometry.spatial).fill(1);
    const transposed = this.b.transpose(`${leaf}_turned`, factor, plain ? [1, 0] : [0, 2, 1]);
    const kernel = this.b.reshape(`${leaf}_kernel`, transposed, [groups * to, from, ...ones]);
    return this.b.node(leaf, 'Conv', [x, kernel], {
      kernel_shape: { ints: ones },
      ...(groups > 1 ? { group: { int: groups } } : {}),
      ...(strides.some((stride) => stride !== 1) ? { strides: { ints: strides } } : {}),
    });
  }
}

/** Groups, channels in and channels out of one group. */
type Shape3 = readonly [groups: number, from: number, to: number];
