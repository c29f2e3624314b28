import { byteLength, type FloatName } from '../../onnx/dtype.js';
import type { Tensor } from '../../onnx/model.js';
import type { TensorReader } from '../../onnx/tensor.js';

/** A weight to fold into: a matrix of one type whose rows can be read in runs. */
export interface BaseWeight {
  readonly dtype: FloatName;
  readonly rows: number;
  readonly columns: number;
  /** The bytes of rows `start` to `end`, valid until the next call. */
  readRows(start: number, end: number): Uint8Array | Promise<Uint8Array>;
}

/** A weight that the file stores as floating-point numbers; axes after the second are of size 1. */
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
