/** `W + P · Q` in float64 on ONNX Runtime, a panel of rows at a time. */
import onnxProto from 'onnx-proto';
import {
  dataTypeNumber,
  type FloatName,
  fromFloat32,
  fromFloat64,
  toFloat32,
  toFloat64,
} from '../../onnx/dtype.js';
import { openSession, type Session } from '../../runtime/session.js';
import type { Product } from './row-factors.js';

const { onnx } = onnxProto;

/** A panel after the fold. */
export interface FoldedPanel {
  /** In the weight's own type, rounded once. */
  readonly bytes: Uint8Array;
  /** Sums of squares over the panel. */
  readonly deltaSquares: number;
  readonly weightSquares: number;
}

/** The kernels of all types, each made when it is first asked for. */
export class FoldKernels {
  private readonly kernels = new Map<FloatName, Promise<FoldKernel>>();

  of(dtype: FloatName): Promise<FoldKernel> {
    const known = this.kernels.get(dtype) ?? FoldKernel.create(dtype);
    this.kernels.set(dtype, known);
    return known;
  }

  async release(): Promise<void> {
    for (const kernel of this.kernels.values()) await (await kernel).release();
  }
}

/** Folds panels of weights of one type. */
export class FoldKernel {
  private constructor(
    private readonly session: Session,
    private readonly dtype: FloatName,
    /** Type that crosses to ONNX Runtime: its own rounding to half precision goes by float32. */
    private readonly io: 'float32' | 'float64',
  ) {}

  static async create(dtype: FloatName): Promise<FoldKernel> {
    const io = dtype === 'float32' ? 'float32' : 'float64';
    // Threads that wait in a loop would take the processor from the disk's side of the work.
    const session = await openSession(kernelModel(io), { spinning: false });
    return new FoldKernel(session, dtype, io);
  }

  /** `bytes` holds `rows` rows of `columns` numbers. */
  async fold(
    bytes: Uint8Array,
    rows: number,
    columns: number,
    product: Product,
  ): Promise<FoldedPanel> {
    const count = rows * columns;
    const weight = (this.io === 'float32' ? toFloat32 : toFloat64)(this.dtype, bytes, count);
    const { left, right, inner } = product;
    const outputs = await this.session.run(
      new Map([
        ['w', { dtype: this.io, dims: [rows, columns], data: weight }],
        ['p', { dtype: 'float64', dims: [rows, inner], data: left }],
        ['q', { dtype: 'float64', dims: [inner, columns], data: right }],
      ]),
    );
    const output = (name: string) => outputs.get(name)!.data as Float64Array;
    const folded = outputs.get('folded')!.data as Float32Array | Float64Array;
    return {
      bytes:
        folded instanceof Float64Array
          ? fromFloat64(this.dtype, folded)
          : fromFloat32(this.dtype, folded),
      deltaSquares: output('delta_squares')[0]!,
      weightSquares: output('weight_squares')[0]!,
    };
  }

  async release(): Promise<void> {
    await this.session.release();
  }
}

/**
 * folded = cast(double(w) + p · q), and the sums of squares of both terms. That of p · q is
 * `sum((pᵀp) ∘ (qqᵀ))`: the product itself exists only inside Gemm.
 */
function kernelModel(io: 'float32' | 'float64'): Uint8Array {
  const double = dataTypeNumber('float64');
  const type = dataTypeNumber(io);
  const INT = onnx.AttributeProto.AttributeType.INT;
  const node = (opType: string, input: string[], output: string, flags: object = {}) => ({
    opType,
    input,
    output: [output],
    attribute: Object.entries(flags).map(([name, i]) => ({ name, type: INT, i })),
  });
  const value = (name: string, elemType: number, ...dims: string[]) => ({
    name,
    type: { tensorType: { elemType, shape: { dim: dims.map((dimParam) => ({ dimParam })) } } },
  });
  return onnx.ModelProto.encode({
    irVersion: 8,
    opsetImport: [{ version: 17 }],
    graph: {
      name: 'fold',
      node: [
        node('Cast', ['w'], 'weight', { to: double }),
        node('Gemm', ['p', 'q', 'weight'], 'sum'),
        node('Cast', ['sum'], 'folded', { to: type }),
        node('ReduceSumSquare', ['weight'], 'weight_squares', { keepdims: 0 }),
        node('Gemm', ['p', 'p'], 'pp', { transA: 1 }),
        node('Gemm', ['q', 'q'], 'qq', { transB: 1 }),
        node('Mul', ['pp', 'qq'], 'pq'),
        node('ReduceSum', ['pq'], 'delta_squares', { keepdims: 0 }),
      ],
      input: [
        value('w', type, 'rows', 'columns'),
        value('p', double, 'rows', 'inner'),
        value('q', double, 'inner', 'columns'),
      ],
      output: [
        value('folded', type, 'rows', 'columns'),
        value('delta_squares', double),
        value('weight_squares', double),
      ],
    },
  }).finish();
}
