import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blockNorms, type Factors, totalNorm } from '../../../src/adapters/factors/norms.js';
import {
  planStructure,
  type Structure,
  shapeOfA,
  shapeOfB,
  structures,
} from '../../../src/adapters/structure/structure.js';
import { cpuSeconds } from '../../support/cpu-time.js';

const product = (dims: readonly number[]) => dims.reduce((a, b) => a * b, 1);

/** ΔW [in, out] by the definition, with nothing shared with the code under test but the shapes. */
function denseDelta(s: Structure, f: Factors, scale: number): number[][] {
  const [kIn, kOut] = s.grid;
  const [height, width] = [s.in / kIn, s.out / kOut];
  const diagonal = s.structure === 'diagonal';
  const columnsOfA = diagonal ? s.blockRank : kOut * s.blockRank;
  const rowsOfB = diagonal ? s.blockRank : kIn * s.blockRank;
  const entry = (row: number, column: number) => {
    const [n, j] = [Math.floor(row / height), Math.floor(column / width)];
    let sum = 0;
    for (let r = 0; r < (diagonal && n !== j ? 0 : s.blockRank); r++) {
      const p = diagonal ? r : j * s.blockRank + r;
      const q = diagonal ? r : n * s.blockRank + r;
      const a = f.a[n * height * columnsOfA + (row % height) * columnsOfA + p]!;
      sum += a * f.b[j * rowsOfB * width + q * width + (column % width)]!;
    }
    for (let r = 0; r < s.hybridRank; r++) {
      sum += f.generalA![row * s.hybridRank + r]! * f.generalB![r * s.out + column]!;
    }
    return scale * sum;
  };
  return Array.from({ length: s.in }, (_, i) =>
    Array.from({ length: s.out }, (_, o) => entry(i, o)),
  );
}

function denseNorms(s: Structure, delta: number[][]): number[][] {
  const [kIn, kOut] = s.grid;
  const squares = Array.from({ length: kIn }, () => new Array<number>(kOut).fill(0));
  for (const [i, row] of delta.entries()) {
    for (const [o, value] of row.entries()) {
      squares[Math.floor((i * kIn) / s.in)]![Math.floor((o * kOut) / s.out)]! += value ** 2;
    }
  }
  return squares.map((row) => row.map(Math.sqrt));
}

function randomFactors(
  s: Structure,
  seed: number,
  make: (size: number) => Float32Array | Float64Array,
) {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  const fill = (size: number) => make(size).map(next);
  return {
    a: fill(product(shapeOfA(s))),
    b: fill(product(shapeOfB(s))),
    generalA: fill(s.in * s.hybridRank),
    generalB: fill(s.hybridRank * s.out),
  };
}

const plans = fc
  .record({
    structure: fc.constantFrom(...structures),
    inSize: fc.integer({ min: 1, max: 24 }),
    outSize: fc.integer({ min: 1, max: 24 }),
    blocks: fc.integer({ min: 1, max: 6 }),
    rank: fc.integer({ min: 1, max: 4 }),
    hybridRank: fc.integer({ min: 0, max: 3 }),
  })
  .map(({ inSize, outSize, blocks, rank, ...rest }) =>
    planStructure(inSize, outSize, { ...rest, blocks, rank: rank * blocks }),
  );

describe('norms of ΔW', () => {
  it('are those of the dense matrix, for every structure, grid and hybrid', () => {
    fc.assert(
      fc.property(
        plans,
        fc.integer(),
        fc.boolean(),
        fc.double({ min: -4, max: 4, noNaN: true }),
        (s, seed, wide, scale) => {
          const factors = randomFactors(s, seed, (n) =>
            wide ? new Float64Array(n) : new Float32Array(n),
          );
          const expected = denseNorms(s, denseDelta(s, factors, scale));
          const found = blockNorms(s, factors, scale);
          expect(found.map((row) => row.length)).toEqual(expected.map((row) => row.length));
          const whole = Math.hypot(...expected.flat());
          // A sum of squares that cancels keeps half the digits.
          const tolerance = 1e-7 * (1 + Math.abs(scale) * s.in * s.out);
          for (const [n, row] of expected.entries()) {
            for (const [j, norm] of row.entries()) {
              expect(Math.abs(found[n]![j]! - norm)).toBeLessThan(tolerance);
            }
          }
          expect(Math.abs(totalNorm(s, factors, scale) - whole)).toBeLessThan(tolerance);
        },
      ),
    );
  });

  it('are exactly 0 where B is 0', () => {
    for (const structure of structures) {
      const s = planStructure(12, 8, { structure, rank: 8, blocks: 4, hybridRank: 2 });
      const { a, b, generalA, generalB } = randomFactors(s, 1, (n) => new Float32Array(n));
      const factors = { a, b: b.fill(0), generalA, generalB: generalB.fill(0) };
      expect(
        blockNorms(s, factors, 2)
          .flatMap((row) => [...row])
          .every((norm) => norm === 0),
      ).toBe(true);
      expect(totalNorm(s, factors, 2)).toBe(0);
    }
  });

  it('leave the blocks that a diagonal does not have at 0', () => {
    const s = planStructure(8, 8, { structure: 'diagonal', rank: 2, blocks: 4 });
    const norms = blockNorms(
      s,
      randomFactors(s, 3, (n) => new Float32Array(n)),
      1,
    );
    for (const [n, row] of norms.entries()) {
      for (const [j, norm] of row.entries()) expect(norm > 0).toBe(n === j);
    }
  });

  it('say so where a factor is not finite', () => {
    const s = planStructure(4, 4, { structure: 'global', rank: 1, blocks: 1 });
    const factors = { a: Float32Array.of(1, Number.NaN, 1, 1), b: Float32Array.of(1, 1, 1, 1) };
    expect(totalNorm(s, factors, 1)).toBeNaN();
  });

  it('take well under a second for a 4096 x 4096 layer with a hybrid of rank 64', async () => {
    const s = planStructure(4096, 4096, {
      structure: 'localized',
      rank: 64,
      blocks: 8,
      hybridRank: 64,
    });
    const factors = randomFactors(s, 5, (n) => new Float32Array(n));
    let norms: Float64Array[] = [];
    const seconds = await cpuSeconds(() => {
      norms = blockNorms(s, factors, 0.5);
    });
    // A dense product would take 64 times the work; the limit leaves room for a slow machine.
    expect(seconds).toBeLessThan(5);
    const whole = Math.hypot(...norms.flatMap((row) => [...row]));
    expect(totalNorm(s, factors, 0.5) / whole).toBeCloseTo(1, 10);
  });
});
