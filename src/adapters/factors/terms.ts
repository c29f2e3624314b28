/** An adapter as a sum of rank-one matrices, whatever its structure. */

import { blocksOf, type Structure, shapeOfA, shapeOfB } from '../structure/structure.js';
import type { Factors } from './norms.js';

/** `column · row` in block (n, j) of ΔW, the `index`-th of the block. */
export interface Term {
  readonly n: number;
  readonly j: number;
  readonly index: number;
  /** [in/Kin] */
  readonly column: Float64Array;
  /** [out/Kout] */
  readonly row: Float64Array;
}

/** The terms of the blocks, one after the other; a hybrid's global part is not among them. */
export function* blockTerms(s: Structure, { a, b }: Factors): Generator<Term> {
  const { height, width, strideOfA } = layoutOf(s);
  for (const { n, j } of blocksOf(s)) {
    for (let index = 0; index < s.blockRank; index++) {
      const { atA, atB } = placeOf(s, { n, j, index });
      // Filled by hand: `from` takes ten times as long, and an AdapterSession waits for it.
      const column = new Float64Array(height);
      for (let x = 0; x < height; x++) column[x] = a[atA + x * strideOfA]!;
      yield { n, j, index, column, row: new Float64Array(b.subarray(atB, atB + width)) };
    }
  }
}

/** Writes a term into the factors of a structure. */
export function putTerm(
  s: Structure,
  { a, b }: { readonly a: Float64Array; readonly b: Float64Array },
  term: Term,
): void {
  const { strideOfA } = layoutOf(s);
  const { atA, atB } = placeOf(s, term);
  for (let x = 0; x < term.column.length; x++) a[atA + x * strideOfA] = term.column[x]!;
  b.set(term.row, atB);
}

/** Offsets of a term in A and B. */
function placeOf(s: Structure, { n, j, index }: Pick<Term, 'n' | 'j' | 'index'>) {
  const { height, width, strideOfA, rowsOfB } = layoutOf(s);
  const isDiagonal = s.structure === 'diagonal';
  const columnOfA = (isDiagonal ? 0 : j * s.blockRank) + index;
  const rowOfB = (isDiagonal ? 0 : n * s.blockRank) + index;
  return { atA: n * height * strideOfA + columnOfA, atB: (j * rowsOfB + rowOfB) * width };
}

function layoutOf(s: Structure) {
  const [height, width] = [s.in / s.grid[0], s.out / s.grid[1]];
  return { height, width, strideOfA: shapeOfA(s).at(-1)!, rowsOfB: shapeOfB(s).at(-2)! };
}

/** The terms of a hybrid's global part, in the one block of ΔW as a whole. */
export function generalTerms(s: Structure, { generalA, generalB }: Factors): Iterable<Term> {
  const { hybridRank } = s;
  if (hybridRank === 0) return [];
  const general = { ...s, structure: 'global', grid: [1, 1], blockRank: hybridRank } as const;
  return blockTerms(general, { a: generalA!, b: generalB! });
}
