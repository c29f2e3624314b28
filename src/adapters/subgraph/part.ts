/** The output of an adapter of a part of a layer, as wide as the layer: zeros around its own columns. */
import type { FloatName } from '../../onnx/dtype.js';
import { layerColumns, type Structure } from '../structure/structure.js';
import type { SubgraphBuilder } from './subgraph-builder.js';

/** The numbers of columns of the layer before those of the part, and after them. */
function around(s: Structure): [before: number, behind: number] {
  const before = s.part?.first ?? 0;
  return [before, layerColumns(s) - before - s.out];
}

/** A second factor [rank, out] as wide as the layer: nodes on constants, which a runtime folds. */
export function wideFactor(
  b: SubgraphBuilder,
  leaf: string,
  factor: string,
  rank: number,
  s: Structure,
  dtype: FloatName,
): string {
  const [before, behind] = around(s);
  if (before + behind === 0) return factor;
  const zeros = (side: string, count: number) =>
    count > 0 ? [b.zeros(`${leaf}_${side}`, [rank, count], dtype)] : [];
  const columns = [...zeros('before', before), factor, ...zeros('behind', behind)];
  return b.node(leaf, 'Concat', columns, { axis: { int: 1 } });
}

/** The part's own columns of a matrix that is as wide as the layer. @param axis that the columns lie along */
export function ownColumns(b: SubgraphBuilder, value: string, s: Structure, axis: number): string {
  if (!s.part) return value;
  const { first } = s.part;
  return b.slice('own_columns', value, { axis, start: first, end: first + s.out });
}

/** A matrix [rows, out] as wide as the layer; with the axis 0 one of [out, rows]. */
export function wideColumns(
  b: SubgraphBuilder,
  leaf: string,
  value: string,
  s: Structure,
  axis = 1,
): string {
  const [before, behind] = around(s);
  if (before + behind === 0) return value;
  return b.pad(leaf, value, axis === 1 ? [0, before, 0, behind] : [before, 0, behind, 0]);
}

/** A vector of the part's columns as one of all the layer's. */
export function wideVector(b: SubgraphBuilder, leaf: string, value: string, s: Structure): string {
  const [before, behind] = around(s);
  return before + behind === 0 ? value : b.pad(leaf, value, [before, behind]);
}

/** Rows [N, Kout, out/Kout] of the part as rows of the layer: [N, columns]; others stay as they are. */
export function wideRows(b: SubgraphBuilder, value: string, s: Structure): string {
  if (!s.part) return value;
  return wideColumns(b, 'd_wide', b.reshape('d_part', value, [-1, s.out]), s);
}
