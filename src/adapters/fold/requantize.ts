/** Rounds a folded weight to integers again: bits, groups, zero points and layout stay, scales are chosen anew. */
import { fromFloat64, toFloat64 } from '../../onnx/dtype.js';
import type { Computed } from '../../onnx/edit.js';
import type { BaseWeight } from './base-weight.js';
import type { FoldNorms } from './folded-weight.js';
import { bestScale, codeOf } from './least-squares.js';
import type { StoredCodes } from './stored-codes.js';

/** W + ΔW, and how it lies. */
export interface FoldedMatrix {
  readonly base: BaseWeight;
  /** Its rows are columns of W. */
  readonly transposed: boolean;
  readonly data: Computed;
  readonly norms: FoldNorms;
}

/** The bytes of codes and scales, which are computed together when the first of them are written. */
export function requantized(
  folded: FoldedMatrix,
  stored: StoredCodes,
  sizes: { readonly codes: number; readonly scales: number },
  oldScales: Float64Array,
): { codes: Computed; scales: Computed } {
  let made: Promise<Record<'codes' | 'scales', Uint8Array>> | undefined;
  const part = (name: 'codes' | 'scales'): Computed => ({
    length: sizes[name],
    async *chunks() {
      made ??= quantize(folded, stored, oldScales);
      yield (await made)[name];
    },
  });
  return { codes: part('codes'), scales: part('scales') };
}

async function quantize(
  { base, transposed, data, norms }: FoldedMatrix,
  stored: StoredCodes,
  oldScales: Float64Array,
): Promise<Record<'codes' | 'scales', Uint8Array>> {
  const weight = await numbersOf(base, data);
  const [rows, columns] = transposed ? [base.columns, base.rows] : [base.rows, base.columns];
  const at = (row: number, column: number) =>
    transposed ? column * rows + row : row * columns + column;
  const groups = groupsOf(stored, rows, columns, oldScales.length);
  const codes = new Int16Array(rows * columns);
  const scales = oldScales.slice();
  let squares = 0;
  for (const [group, members] of groups.entries()) {
    const values = Float64Array.from(
      members,
      (i) => weight[at(Math.floor(i / columns), i % columns)]!,
    );
    const range = stored.rangeOf(group);
    const scale = bestScale(values, range, oldScales[group]!, (one) => roundedTo(stored, one));
    scales[group] = scale;
    for (const [k, i] of members.entries()) {
      const code = codeOf(values[k]!, scale, range);
      codes[i] = code;
      squares += (values[k]! - scale * (code - range.zero)) ** 2;
    }
  }
  norms.lost = Math.sqrt(squares);
  return { codes: stored.pack(codes), scales: fromFloat64(stored.scaleDtype, scales) };
}

/** The elements of W that share a scale, by row and column in one number. */
function groupsOf(stored: StoredCodes, rows: number, columns: number, count: number): Int32Array[] {
  const sizes = new Int32Array(count);
  const each = (visit: (group: number, i: number) => void) => {
    for (let row = 0, i = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, i++) visit(stored.groupOf(row, column), i);
    }
  };
  each((group) => {
    sizes[group]!++;
  });
  const groups = Array.from(sizes, (size) => new Int32Array(size));
  each((group, i) => {
    groups[group]![--sizes[group]!] = i;
  });
  return groups;
}

function roundedTo({ scaleDtype }: StoredCodes, scale: number): number {
  return toFloat64(scaleDtype, fromFloat64(scaleDtype, Float64Array.of(scale)), 1)[0]!;
}

async function numbersOf(
  { dtype, rows, columns }: BaseWeight,
  data: Computed,
): Promise<Float64Array> {
  const numbers = new Float64Array(rows * columns);
  let at = 0;
  for await (const chunk of data.chunks()) {
    // The buffer of a chunk may begin anywhere.
    const bytes = chunk.slice();
    const count = Math.round((bytes.length / data.length) * numbers.length);
    numbers.set(toFloat64(dtype, bytes, count), at);
    at += count;
  }
  return numbers;
}
