import { OnnxLoraError } from '../../errors.js';
import { byteLength, fromFloat64 } from '../../onnx/dtype.js';
import type { Computed } from '../../onnx/edit.js';
import { checkFold } from '../structure/finite.js';
import type { BaseWeight } from './base-weight.js';
import type { FoldNorms } from './folded-weight.js';
import type { RowFactors } from './row-factors.js';
import { sums } from './sums.js';

/** An adapter that brings columns to magnitudes. */
export interface Dora {
  readonly delta: RowFactors;
  /** m, [out] */
  readonly magnitude: Float64Array;
  /** The layer computes with `factor` times the stored weight. */
  readonly factor: number;
  /** The stored rows are columns of W. */
  readonly transposed: boolean;
}

/**
 * `(W + ΔW) · diag(m / ‖W + ΔW‖)`, computed in float64 and rounded once, while it is written: the weight
 * is read twice, for its columns' norms and for its numbers.
 * @param norms filled in when the last panel is done
 * @param label what to call the weight's layer in an error
 */
export function doraWeight(
  weight: BaseWeight,
  make: () => Dora,
  norms: FoldNorms,
  label: string,
): Computed {
  const { dtype, rows, columns } = weight;
  async function* chunks() {
    const dora = make();
    const gains = gainsOf(dora, await columnSquares(weight, dora), label);
    let [deltaSquares, weightSquares] = [0, 0];
    for await (const { start, panel } of sums(weight, [dora.delta])) {
      const { before, after } = panel;
      for (let i = 0; i < after.length; i++) {
        const value = after[i]! * gains[columnOf(dora, start, i, columns)]!;
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
}

async function columnSquares(weight: BaseWeight, dora: Dora): Promise<Float64Array> {
  const squares = new Float64Array(dora.magnitude.length);
  for await (const { start, panel } of sums(weight, [dora.delta])) {
    const { after } = panel;
    for (let i = 0; i < after.length; i++) {
      squares[columnOf(dora, start, i, weight.columns)]! += after[i]! ** 2;
    }
  }
  return squares;
}

/** The column of W that an element of a panel belongs to. */
function columnOf({ transposed }: Dora, start: number, i: number, columns: number): number {
  return transposed ? start + Math.floor(i / columns) : i % columns;
}

function gainsOf({ magnitude, factor }: Dora, squares: Float64Array, label: string): Float64Array {
  return magnitude.map((wanted, column) => {
    const norm = Math.abs(factor) * Math.sqrt(squares[column]!);
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
  });
}
