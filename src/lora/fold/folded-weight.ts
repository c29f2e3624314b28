import { OnnxLoraError } from '../../errors.js';
import { byteLength, type FloatName } from '../../onnx/dtype.js';
import type { Computed } from '../../onnx/edit.js';
import type { Tensor } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';
import type { FoldKernels } from './kernel.js';
import { type RowFactors, sumOfProducts } from './row-factors.js';

/** A weight to fold into: a matrix of one type whose rows can be read in runs. */
export interface BaseWeight {
  readonly dtype: FloatName;
  readonly rows: number;
  readonly columns: number;
  /** The bytes of rows `start` to `end`, valid until the next call. */
  readRows(start: number, end: number): Uint8Array | Promise<Uint8Array>;
}

/** A weight that the file stores as floating-point numbers; axes behind the second are of size 1. */
export function storedWeight(reader: TensorReader, tensor: Tensor, dtype: FloatName): BaseWeight {
  const [rows = 1, ...rest] = tensor.dims;
  const columns = rest.reduce((product, dim) => product * dim, 1);
  const width = byteLength(dtype, columns);
  const span = reader.span(tensor);
  // Typed fields have no rows to read: such a weight is small, or its file would be twice as large.
  let typed: Uint8Array | undefined;
  // One buffer for all panels: fresh ones would keep the garbage collector busy.
  let panel = new Uint8Array();
  const readRows = (start: number, end: number) => {
    if (!span) {
      typed ??= reader.bytes(tensor);
      return typed.subarray(start * width, end * width);
    }
    const length = (end - start) * width;
    if (panel.length < length) panel = new Uint8Array(length);
    const bytes = panel.subarray(0, length);
    span.source.readInto(bytes, span.start + start * width);
    return bytes;
  };
  return { dtype, rows, columns, readRows };
}

/** Norms that are known once a weight was folded. */
export interface FoldNorms {
  delta: number;
  weight: number;
}

// A panel and its float64 copies stay near the processor's caches, and memory stays small.
const PANEL_ELEMENTS = 128 * 1024;

/**
 * The folded weight as bytes that are computed while they are written.
 * @param norms filled in when the last panel is done
 * @param label what to call the weight's layer in an error
 */
export function foldedWeight(
  weight: BaseWeight,
  deltas: () => readonly RowFactors[],
  kernels: FoldKernels,
  norms: FoldNorms,
  label: string,
): Computed {
  const { dtype, rows, columns } = weight;
  async function* chunks() {
    const kernel = await kernels.of(dtype);
    const factors = deltas();
    let deltaSquares = 0;
    let weightSquares = 0;
    for (const [start, end] of panels(rows, columns, factors)) {
      const product = sumOfProducts(
        factors.map((factor) => factor.product(start, end)),
        end - start,
        columns,
      );
      const panel = await kernel.fold(
        await weight.readRows(start, end),
        end - start,
        columns,
        product,
      );
      deltaSquares += panel.deltaSquares;
      weightSquares += panel.weightSquares;
      yield panel.bytes;
    }
    if (!Number.isFinite(deltaSquares)) throw notFinite(label);
    norms.delta = Math.sqrt(deltaSquares);
    norms.weight = Math.sqrt(weightSquares);
  }
  return { length: byteLength(dtype, rows * columns), chunks };
}

/** Runs of rows that cross no row of blocks of any adapter. */
export function* panels(
  rows: number,
  columns: number,
  factors: readonly RowFactors[],
): Generator<[start: number, end: number]> {
  const limit = Math.max(1, Math.floor(PANEL_ELEMENTS / columns));
  for (let start = 0; start < rows; ) {
    let end = Math.min(rows, start + limit);
    for (const { blockRows } of factors) {
      end = Math.min(end, (Math.floor(start / blockRows) + 1) * blockRows);
    }
    yield [start, end];
    start = end;
  }
}

function notFinite(label: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-adapter',
    `${label}: its adapter holds NaN or infinite numbers`,
    {
      node: label,
      hint: 'The training run diverged, or the file is damaged. Nothing was written.',
    },
  );
}
