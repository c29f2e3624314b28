import { fromFloat64, toFloat64 } from '../../onnx/dtype.js';
import { type BaseWeight, panels } from './folded-weight.js';
import type { FoldKernels } from './kernel.js';
import type { RowFactors } from './row-factors.js';

/** A run of rows of a weight. */
export interface Sum {
  /** The first row. */
  readonly start: number;
  readonly before: Float64Array;
  /** With ΔW, not rounded. */
  readonly after: Float64Array;
}

/** `W` and `W + ΔW` in float64, a run of rows at a time. */
export async function* sums(
  weight: BaseWeight,
  delta: RowFactors,
  kernels: FoldKernels,
): AsyncGenerator<Sum> {
  const { dtype, rows, columns } = weight;
  // Of float64 numbers the kernel gives the sum as it is.
  const kernel = await kernels.of('float64');
  for (const [start, end] of panels(rows, columns, [delta])) {
    const count = (end - start) * columns;
    const before = toFloat64(dtype, await weight.readRows(start, end), count).slice();
    const bytes = fromFloat64('float64', before);
    const folded = await kernel.fold(bytes, end - start, columns, delta.product(start, end));
    yield { start, before, after: toFloat64('float64', folded.bytes, count).slice() };
  }
}
