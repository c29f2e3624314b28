/** Products of matrices in float64 on ONNX Runtime: its kernels use every core and all of SIMD. */

import { dataTypeNumber } from '../onnx/dtype.js';
import { onnx } from '../onnx/proto.js';
import { openSession, type Session } from '../runtime/session.js';

/** A matrix of float32 or float64 numbers, row-major. */
export interface Matrix {
  readonly data: Floats;
  readonly rows: number;
  readonly columns: number;
}

/** The same in float64. */
export interface DoubleMatrix extends Matrix {
  readonly data: Float64Array;
}

// A panel of a float32 matrix is widened before it is multiplied: this much is in memory twice.
const PANEL_ELEMENTS = 1024 * 1024;

/** left [m, n] · right [n, k]. */
export async function product(left: Matrix, right: DoubleMatrix): Promise<DoubleMatrix> {
  const data = new Float64Array(left.rows * right.columns);
  for (const { panel, start } of panels(left)) {
    data.set(await multiply(panel, right, false), start * right.columns);
  }
  return { data, rows: left.rows, columns: right.columns };
}

/** leftᵀ · right for left [m, n], right [m, k]. */
export async function transposedProduct(left: Matrix, right: DoubleMatrix): Promise<DoubleMatrix> {
  const data = new Float64Array(left.columns * right.columns);
  for (const { panel, start } of panels(left)) {
    const rows = panel.rows;
    const of = right.data.subarray(start * right.columns, (start + rows) * right.columns);
    const part = await multiply(panel, { data: of, rows, columns: right.columns }, true);
    for (let i = 0; i < data.length; i++) data[i]! += part[i]!;
  }
  return { data, rows: left.columns, columns: right.columns };
}

/** The square of the Frobenius norm. */
export function sumOfSquares(values: Floats): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  return sum;
}

export function frobenius(values: Floats): number {
  return Math.sqrt(sumOfSquares(values));
}

/** Runs of rows of a matrix, in order. */
function* panels({ data, rows, columns }: Matrix): Generator<{ panel: Matrix; start: number }> {
  const height = Math.max(1, Math.floor(PANEL_ELEMENTS / columns));
  for (let start = 0; start < rows; start += height) {
    const end = Math.min(rows, start + height);
    const part = data.subarray(start * columns, end * columns);
    yield { panel: { data: part, rows: end - start, columns }, start };
  }
}

type Kind = `${'float32' | 'float64'}${'' | ' transposed'}`;

/** Opened once in a process: they hold no weights. */
const sessions = new Map<Kind, Promise<Session>>();

async function multiply(left: Matrix, right: DoubleMatrix, isTransposed: boolean) {
  const dtype = left.data instanceof Float32Array ? 'float32' : 'float64';
  const kind: Kind = isTransposed ? `${dtype} transposed` : dtype;
  // Between products JavaScript has work to do: threads that wait in a loop would be in its way.
  const opened = sessions.get(kind) ?? openSession(gemm(dtype, isTransposed), { spinning: false });
  sessions.set(kind, opened);
  const session = await opened;
  const outputs = await session.run(
    new Map([
      ['left', { dtype, dims: [left.rows, left.columns], data: left.data }],
      ['right', { dtype: 'float64', dims: [right.rows, right.columns], data: right.data }],
    ]),
  );
  return outputs.get('product')!.data as Float64Array;
}

function gemm(dtype: 'float32' | 'float64', isTransposed: boolean): Uint8Array {
  const [double, type] = [dataTypeNumber('float64'), dataTypeNumber(dtype)];
  const INT = onnx.AttributeProto.AttributeType.INT;
  const matrix = (name: string, elemType: number, rows: string, columns: string) => ({
    name,
    type: { tensorType: { elemType, shape: { dim: [{ dimParam: rows }, { dimParam: columns }] } } },
  });
  return onnx.ModelProto.encode({
    irVersion: 8,
    opsetImport: [{ version: 17 }],
    graph: {
      name: 'product',
      node: [
        {
          opType: 'Cast',
          input: ['left'],
          output: ['wide'],
          attribute: [{ name: 'to', type: INT, i: double }],
        },
        {
          opType: 'Gemm',
          input: ['wide', 'right'],
          output: ['product'],
          attribute: [{ name: 'transA', type: INT, i: Number(isTransposed) }],
        },
      ],
      input: [
        matrix('left', type, 'm', 'n'),
        matrix('right', double, isTransposed ? 'm' : 'n', 'k'),
      ],
      output: [matrix('product', double, isTransposed ? 'n' : 'm', 'k')],
    },
  }).finish();
}

/** Numbers of a matrix, row by row. */
export type Floats = Float32Array | Float64Array;
