import { byteLength, fromFloat64, toFloat64 } from '../../onnx/dtype.js';
import { checkFold } from '../structure/finite.js';
import type { BaseWeight } from './base-weight.js';
import type { FoldRule } from './folded-weight.js';
import { sums } from './sums.js';

/** `W ∘ (1 + ΣΔ)` with Δ = s·A·B, computed in float64 and rounded once, while it is written. */
export const hadamardWeight: FoldRule = ({ weight, deltas, norms, label }) => {
  const { dtype, rows, columns } = weight;
  async function* chunks() {
    let [deltaSquares, weightSquares] = [0, 0];
    // Numbers of W times those of Δ: a factor of W is in both forms of it.
    for await (const { start, panel } of sums(onesLike(weight), deltas(1))) {
      const factors = panel.after.slice();
      const bytes = await weight.readRows(start, start + factors.length / columns);
      const before = toFloat64(dtype, bytes, factors.length);
      const after = factors.map((factor, i) => before[i]! * factor);
      const squares = checkFold(label, dtype, before, after);
      deltaSquares += squares.deltaSquares;
      weightSquares += squares.weightSquares;
      yield fromFloat64(dtype, after);
    }
    norms.delta = Math.sqrt(deltaSquares);
    norms.weight = Math.sqrt(weightSquares);
  }
  return { length: byteLength(dtype, rows * columns), chunks };
};

/** A weight of the same size, all of whose numbers are 1. */
function onesLike({ rows, columns }: BaseWeight): BaseWeight {
  let ones = new Uint8Array();
  return {
    ...{ dtype: 'float32', rows, columns },
    readRows: (start, end) => {
      const length = (end - start) * columns;
      if (ones.length < 4 * length) ones = new Uint8Array(new Float32Array(length).fill(1).buffer);
      return ones.subarray(0, 4 * length);
    },
  };
}
