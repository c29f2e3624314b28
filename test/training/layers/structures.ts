/** Random structures, and ΔW by its definition in plain JavaScript. */
import fc from 'fast-check';
import {
  blocksOf,
  planStructure,
  type Structure,
  shapeOfA,
  shapeOfB,
  structures,
} from '../../../src/adapters/structure/structure.js';
import { randomNumbers } from '../../support/adapters.js';

export interface Factors {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly generalA: Float64Array;
  readonly generalB: Float64Array;
}

export const structureCases: fc.Arbitrary<Structure> = fc
  .record({
    structure: fc.constantFrom(...structures),
    in: fc.integer({ min: 1, max: 12 }),
    out: fc.integer({ min: 1, max: 12 }),
    blocks: fc.integer({ min: 1, max: 4 }),
    blockRank: fc.integer({ min: 1, max: 3 }),
    hybridRank: fc.constantFrom(0, 0, 1, 3),
  })
  .map(({ blockRank, ...s }) => planStructure(s.in, s.out, { ...s, rank: blockRank * s.blocks }));

const count = (shape: readonly number[]) => shape.reduce((x, y) => x * y, 1);

/** Numbers that float32 holds exactly. */
export function float32Numbers(seed: number, length: number): Float64Array {
  return Float64Array.from(Float32Array.from(randomNumbers(seed, length)));
}

export function randomFactors(s: Structure, seed: number): Factors {
  return {
    a: float32Numbers(seed, count(shapeOfA(s))),
    b: float32Numbers(seed + 1, count(shapeOfB(s))),
    generalA: float32Numbers(seed + 2, s.in * s.hybridRank),
    generalB: float32Numbers(seed + 3, s.hybridRank * s.out),
  };
}

/** Calls back with each product A[i] · B[j] that ΔW is a sum of: the places in A, B and ΔW [in, out]. */
export function forEachTerm(s: Structure, visit: (a: number, b: number, w: number) => void): void {
  const [kIn, kOut] = s.grid;
  const [height, width] = [s.in / kIn, s.out / kOut];
  const columns = shapeOfA(s).at(-1)!;
  const rows = shapeOfB(s).at(-2)!;
  for (const { n, j, rowOfB, columnOfA } of blocksOf(s)) {
    for (let i = 0; i < height; i++) {
      for (let o = 0; o < width; o++) {
        for (let r = 0; r < s.blockRank; r++) {
          visit(
            (n * height + i) * columns + columnOfA + r,
            (j * rows + rowOfB + r) * width + o,
            (n * height + i) * s.out + j * width + o,
          );
        }
      }
    }
  }
}

/** The structure of the global part of a hybrid. */
export function generalPart(s: Structure): Structure {
  return { ...s, structure: 'global', grid: [1, 1], blockRank: s.hybridRank, hybridRank: 0 };
}

export function referenceDelta(s: Structure, factors: Factors, scale: number): Float64Array {
  const delta = new Float64Array(s.in * s.out);
  forEachTerm(s, (a, b, w) => {
    delta[w]! += scale * factors.a[a]! * factors.b[b]!;
  });
  forEachTerm(generalPart(s), (a, b, w) => {
    delta[w]! += scale * factors.generalA[a]! * factors.generalB[b]!;
  });
  return delta;
}
