import { byteLength, type FloatName, toFloat64 } from '../../onnx/dtype.js';
import type { Computed } from '../../onnx/edit.js';
import type { Tensor } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';
import { checkFold, type FiniteSquares, staysFinite } from '../finite.js';
import type { Panel } from './panel.js';
import type { RowFactors } from './row-factors.js';
import { sums } from './sums.js';

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

/**
 * The folded weight as bytes that are computed while they are written, each number rounded once.
 * @param norms filled in when the last panel is done
 * @param label what to call the weight's layer in an error
 */
export function foldedWeight(
  weight: BaseWeight,
  deltas: () => readonly RowFactors[],
  norms: FoldNorms,
  label: string,
): Computed {
  const { dtype, rows, columns } = weight;
  async function* chunks() {
    let [deltaSum, weightSum] = [0, 0];
    for await (const { start, panel } of sums(weight, deltas())) {
      const { bytes, ...squares } = panel.rounded();
      const checked = await checkedSquares(weight, start, panel, squares, label);
      deltaSum += checked.deltaSquares;
      weightSum += checked.weightSquares;
      yield bytes;
    }
    norms.delta = Math.sqrt(deltaSum);
    norms.weight = Math.sqrt(weightSum);
  }
  return { length: byteLength(dtype, rows * columns), chunks };
}

/** Looks at every number only where the norms leave room for one that is not finite. */
async function checkedSquares(
  { dtype, columns, readRows }: BaseWeight,
  start: number,
  { after }: Panel,
  squares: FiniteSquares,
  label: string,
): Promise<FiniteSquares> {
  const bound = Math.sqrt(squares.deltaSquares) + Math.sqrt(squares.weightSquares);
  if (staysFinite(bound, dtype)) return squares;
  // The panel's own rows give way to the rounded ones.
  const bytes = await readRows(start, start + after.length / columns);
  return checkFold(label, dtype, toFloat64(dtype, bytes, after.length), after);
}
