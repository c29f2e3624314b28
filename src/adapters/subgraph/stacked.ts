/** The factors of a grid as those of one block, with zeros in them: nodes that a runtime folds. */
import type { FloatName } from '../../onnx/dtype.js';
import type { Structure } from '../structure/structure.js';
import type { SubgraphBuilder } from './subgraph-builder.js';

/** [in, columns of all A[n] side by side], each A[n] in its own rows and zeros around it. */
export function stackedA(b: SubgraphBuilder, a: string, s: Structure, dtype: FloatName): string {
  const [kIn, kOut] = s.grid;
  const columns = s.structure === 'diagonal' ? s.blockRank : kOut * s.blockRank;
  const apart = b.reshape('a_apart', a, [kIn, s.in / kIn, 1, columns]);
  const mask = b.identity('a_mask', kIn, [kIn, 1, kIn, 1], dtype);
  return b.reshape('a_stacked', b.node('a_masked', 'Mul', [apart, mask]), [s.in, kIn * columns]);
}

/** [rows in the order of stackedA's columns, out], each B[j] in its own columns. */
export function stackedB(
  b: SubgraphBuilder,
  factor: string,
  s: Structure,
  dtype: FloatName,
): string {
  const [kIn, kOut] = s.grid;
  const r = s.blockRank;
  const width = s.out / kOut;
  if (s.structure === 'diagonal') {
    const apart = b.reshape('b_apart', factor, [kOut, r, 1, width]);
    const mask = b.identity('b_mask', kOut, [kOut, 1, kOut, 1], dtype);
    return b.reshape('b_stacked', b.node('b_masked', 'Mul', [apart, mask]), [kOut * r, s.out]);
  }
  const split = b.reshape('b_split', factor, [kOut, kIn, r, width]);
  const transposed = b.transpose('b_turned', split, [1, 0, 2, 3]);
  const apart = b.reshape('b_apart', transposed, [kIn, kOut, r, 1, width]);
  const mask = b.identity('b_mask', kOut, [1, kOut, 1, kOut, 1], dtype);
  return b.reshape('b_stacked', b.node('b_masked', 'Mul', [apart, mask]), [kIn * kOut * r, s.out]);
}
