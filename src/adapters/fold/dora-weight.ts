import { OnnxLoraError } from '../../errors.js';
import { byteLength, fromFloat64 } from '../../onnx/dtype.js';
import { checkFold } from '../structure/finite.js';
import type { BaseWeight } from './base-weight.js';
import type { FoldRule, OwnColumns } from './folded-weight.js';
import type { RowFactors } from './row-factors.js';
import { sums } from './sums.js';

/**
 * `(W + ΔW) · diag(m / ‖W + ΔW‖)`, computed in float64 and rounded once, while it is written: the weight
 * is read twice, for its columns' norms and for its numbers.
 */
export const doraWeight: FoldRule = (fold) => {
  const { weight, deltas, own, factor, transposed, norms, label } = fold;
  const { dtype, rows, columns } = weight;
  async function* chunks() {
    const all = deltas(factor);
    const found = await columnNorms({ weight, transposed, factor }, all);
    const gains = gainsOf(own, found, label);
    let [deltaSquares, weightSquares] = [0, 0];
    for await (const { start, panel } of sums(weight, all)) {
      const { before, after } = panel;
      for (let i = 0; i < after.length; i++) {
        const value = after[i]! * gains[columnOf(transposed, start, i, columns)]!;
        after[i] = value;
      }
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

/** ‖factor · (W + ΣΔW)‖ of every column of W, [out]. */
export async function columnNorms(
  { weight, transposed, factor }: { weight: BaseWeight; transposed: boolean; factor: number },
  deltas: readonly RowFactors[] = [],
): Promise<Float64Array> {
  const { rows, columns } = weight;
  const squares = new Float64Array(transposed ? rows : columns);
  for await (const { start, panel } of sums(weight, deltas)) {
    const { after } = panel;
    for (let i = 0; i < after.length; i++) {
      squares[columnOf(transposed, start, i, columns)]! += after[i]! ** 2;
    }
  }
  return squares.map((square) => Math.abs(factor) * Math.sqrt(square));
}

/** The column of W that an element of a panel belongs to. */
function columnOf(transposed: boolean, start: number, i: number, columns: number): number {
  return transposed ? start + Math.floor(i / columns) : i % columns;
}

/** m / ‖W + ΔW‖ of the columns that adapters have; others stay as they are. */
function gainsOf(own: readonly OwnColumns[], norms: Float64Array, label: string): Float64Array {
  const gains = new Float64Array(norms.length).fill(1);
  for (const { first, numbers } of own) {
    for (const [i, wanted] of numbers.magnitude!().entries()) {
      gains[first + i] = gainOf(first + i, wanted, norms[first + i]!, label);
    }
  }
  return gains;
}

function gainOf(column: number, wanted: number, norm: number, label: string): number {
  const gain = wanted / norm;
  if (Number.isFinite(gain)) return gain;
  throw new OnnxLoraError(
    'invalid-adapter',
    `${label}: column ${column} of its weight and adapter has the norm ${norm}, and the magnitude ${wanted}`,
    {
      node: label,
      hint: 'The training run diverged, or the file is damaged. Nothing was written.',
    },
  );
}
