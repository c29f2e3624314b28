import { byteLength, toFloat64 } from '../../onnx/dtype.js';
import type { Computed } from '../../onnx/edit.js';
import type { OwnNumbers } from '../factors/factors.js';
import { checkFold, type FiniteSquares, staysFinite } from '../structure/finite.js';
import type { BaseWeight } from './base-weight.js';
import type { Panel } from './panel.js';
import type { RowFactors } from './row-factors.js';
import { sums } from './sums.js';

/** Norms that are known once a weight was folded. */
export interface FoldNorms {
  delta: number;
  weight: number;
  /** Of what rounding W + ΔW to integers moves, where it is. */
  lost?: number;
}

/** The numbers of an adapter beside its factors, and the first column of W that they are for. */
export interface OwnColumns {
  readonly first: number;
  readonly numbers: OwnNumbers;
}

/** A weight and what is to be folded into it. */
export interface Fold {
  readonly weight: BaseWeight;
  /** ΔW of each adapter as the file stores the weight, divided by a number. */
  deltas(divisor: number): readonly RowFactors[];
  /** The numbers that each adapter has beside its factors. */
  readonly own: readonly OwnColumns[];
  /** The layer computes with `factor` times the stored weight. */
  readonly factor: number;
  /** The stored rows are columns of W. */
  readonly transposed: boolean;
  /** Filled in when the last panel is done. */
  readonly norms: FoldNorms;
  /** The name of the weight's layer in an error. */
  readonly label: string;
}

/** The folded weight as bytes that are computed while they are written, each number rounded once. */
export type FoldRule = (fold: Fold) => Computed;

/** `W + ΣΔW` */
export const foldedWeight: FoldRule = ({ weight, deltas, factor, norms, label }) => {
  const { dtype, rows, columns } = weight;
  async function* chunks() {
    let [deltaSum, weightSum] = [0, 0];
    for await (const { start, panel } of sums(weight, deltas(factor))) {
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
};

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
