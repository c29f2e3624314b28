/** Rounds a folded weight to integers again: bits, groups, zero points and layout stay, scales are chosen anew. */
import { fromFloat64, toFloat64 } from '../../onnx/dtype.js';
import type { Computed } from '../../onnx/edit.js';
import { elementCount } from '../../onnx/model.js';
import type { BaseWeight } from './base-weight.js';
import type { FoldNorms } from './folded-weight.js';
import { bestScale, codeOf, nearestError } from './least-squares.js';
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
  const codes = new Int16Array(weight.length);
  const scales = oldScales.slice();
  let squares = 0;
  for (const { group, members, values } of groupsOf(stored, { base, transposed }, weight)) {
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

/** The elements of W that share a scale. */
interface Group {
  readonly group: number;
  /** By row and column of W in one number. */
  readonly members: Int32Array;
  readonly values: Float64Array;
}

function* groupsOf(
  stored: StoredCodes,
  { base, transposed }: Pick<FoldedMatrix, 'base' | 'transposed'>,
  weight: Float64Array,
): Generator<Group> {
  const [rows, columns] = transposed ? [base.columns, base.rows] : [base.rows, base.columns];
  for (const [group, members] of membersOf(stored, rows, columns).entries()) {
    const place = (i: number) => placeOf({ base, transposed }, i);
    yield { group, members, values: Float64Array.from(members, (i) => weight[place(i)]!) };
  }
}

/** The place of an element of W among the numbers as they lie. */
function placeOf(
  { base: { rows, columns }, transposed }: Pick<FoldedMatrix, 'base' | 'transposed'>,
  i: number,
): number {
  // The columns of W are the rows of what lies there.
  return transposed ? (i % rows) * columns + Math.floor(i / rows) : i;
}

function membersOf(stored: StoredCodes, rows: number, columns: number): Int32Array[] {
  const sizes = new Int32Array(elementCount(stored.scales.tensor.dims));
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

/** Numbers of a weight in integers, beside those that they were rounded from. */
export interface Rounded {
  readonly stored: StoredCodes;
  readonly scales: Float64Array;
  readonly layout: Pick<FoldedMatrix, 'base' | 'transposed'>;
  readonly wanted: Float64Array;
  readonly found: Float64Array;
}

/** The quality of a rounding. */
export interface RoundedWell {
  /** Numbers that are not the nearest to what they stand for, with the scales as they are. */
  readonly off: number;
  /** The greatest error of a group over that of the plainest rounding: the least scale that cuts off nothing. */
  readonly worst: number;
}

/**
 * Holds the numbers that the integers of a file stand for against those that were to be rounded.
 * @param unit the share of a number that its own type may have rounded away
 */
export function judgeRounding(
  { stored, scales, layout, wanted, found }: Rounded,
  unit: number,
): RoundedWell {
  let [off, worst] = [0, 0];
  for (const { group, members, values } of groupsOf(stored, layout, wanted)) {
    const range = stored.rangeOf(group);
    const scale = scales[group]!;
    let [squares, sizes] = [0, 0];
    for (const [k, i] of members.entries()) {
      const value = values[k]!;
      const error = Math.abs(found[placeOf(layout, i)]! - value);
      const least = Math.abs(value - scale * (codeOf(value, scale, range) - range.zero));
      // Not `>`: what is not a number is not near to anything.
      if (!(error <= least + unit * Math.abs(value) + NEAR * Math.abs(scale))) off++;
      squares += error * error;
      sizes += value * value;
    }
    const plain = nearestError(values, range, (one) => roundedTo(stored, one));
    const share = Math.sqrt(squares) / (Math.sqrt(plain) + unit * Math.sqrt(sizes) || 1);
    if (!(share <= worst)) worst = share;
  }
  return { off, worst };
}

/** Two integers may be as near as each other, but for the rounding of sums. */
const NEAR = 1e-3;

function roundedTo({ scaleDtype }: StoredCodes, scale: number): number {
  return toFloat64(scaleDtype, fromFloat64(scaleDtype, Float64Array.of(scale)), 1)[0]!;
}

/** All numbers of a weight that is computed while it is read. */
export async function numbersOf(
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
