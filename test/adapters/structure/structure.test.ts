import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  blocksOf,
  parameterCount,
  planStructure,
  type StructureOptions,
  scaleOf,
  shapeOfA,
  shapeOfB,
  structures,
} from '../../../src/adapters/structure/structure.js';
import { failure } from '../../support/files.js';

const plan = (inSize: number, outSize: number, options: Partial<StructureOptions> = {}) =>
  planStructure(inSize, outSize, { structure: 'localized', rank: 16, blocks: 4, ...options });

describe('shapes', () => {
  it('of a global structure are those of LoRA, whatever the blocks', () => {
    const s = plan(64, 32, { structure: 'global', rank: 6, blocks: 4 });
    expect(s).toMatchObject({ grid: [1, 1], blockRank: 6 });
    expect([shapeOfA(s), shapeOfB(s)]).toEqual([
      [64, 6],
      [6, 32],
    ]);
  });

  it('of a diagonal structure have the full rank in each block', () => {
    const s = plan(64, 32, { structure: 'diagonal' });
    expect(s).toMatchObject({ grid: [4, 4], blockRank: 16 });
    expect([shapeOfA(s), shapeOfB(s)]).toEqual([
      [4, 16, 16],
      [4, 16, 8],
    ]);
  });

  it('of a localized structure share the rank among the blocks of a row', () => {
    const s = plan(64, 32);
    expect(s).toMatchObject({ grid: [4, 4], blockRank: 4 });
    expect([shapeOfA(s), shapeOfB(s)]).toEqual([
      [4, 16, 16],
      [4, 16, 8],
    ]);
  });

  it('of a rectangular grid follow each dimension', () => {
    const s = plan(120, 6625, { rank: 10, blocks: 5 });
    expect(s).toMatchObject({ grid: [5, 5], blockRank: 2 });
    const other = plan(120, 6625, { rank: 8, blocks: 4 });
    expect(other).toMatchObject({ grid: [4, 1], blockRank: 2 });
    expect([shapeOfA(other), shapeOfB(other)]).toEqual([
      [4, 30, 2],
      [1, 8, 6625],
    ]);
  });

  it('of a grid of one block are plain matrices', () => {
    expect(shapeOfA(plan(7, 11))).toEqual([7, 4]);
    expect(shapeOfB(plan(7, 11))).toEqual([4, 11]);
  });
});

describe('blocks', () => {
  it.each([
    [6625, 4, 1],
    [6625, 5, 5],
    [6625, 30, 25],
    [64, 6, 4],
    [64, 5, 4],
    [7, 4, 1],
    [7, 8, 7],
    [12, 12, 12],
    [1, 4, 1],
  ])('of %i features at most %i are %i', (size, blocks, expected) => {
    expect(plan(size, 1, { rank: blocks, blocks }).grid).toEqual([expected, 1]);
    expect(plan(1, size, { rank: blocks, blocks }).grid).toEqual([1, expected]);
  });

  it('of a diagonal divide both dimensions', () => {
    expect(plan(12, 18, { structure: 'diagonal', blocks: 4 }).grid).toEqual([3, 3]);
    expect(plan(8, 9, { structure: 'diagonal', blocks: 4 }).grid).toEqual([1, 1]);
  });

  it('of a diagonal are the n-th of both dimensions, of a grid all pairs', () => {
    const pairs = (structure: 'diagonal' | 'localized') =>
      [...blocksOf(plan(4, 4, { structure, rank: 4, blocks: 2 }))].map(({ n, j }) => [n, j]);
    expect(pairs('diagonal')).toEqual([
      [0, 0],
      [1, 1],
    ]);
    expect(pairs('localized')).toEqual([
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ]);
  });
});

describe('parameters', () => {
  it('are R·(in + out) for every structure on a grid of K x K', () => {
    for (const structure of structures) {
      expect(parameterCount(plan(64, 32, { structure }))).toBe(16 * (64 + 32));
    }
  });

  it('are r·(in·Kout + out·Kin) on any grid, and h·(in + out) for a hybrid beside it', () => {
    const size = fc.integer({ min: 1, max: 60 });
    fc.assert(
      fc.property(
        size,
        size,
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 0, max: 5 }),
        (inSize, outSize, blocks, r, hybridRank) => {
          const s = plan(inSize, outSize, { rank: blocks * r, blocks, hybridRank });
          const [kIn, kOut] = s.grid;
          expect(inSize % kIn).toBe(0);
          expect(outSize % kOut).toBe(0);
          expect(parameterCount(s)).toBe(
            r * (inSize * kOut + outSize * kIn) + hybridRank * (inSize + outSize),
          );
        },
      ),
    );
  });
});

describe('scale', () => {
  it('is alpha/R, or alpha/√R, where a hybrid counts into R', () => {
    expect(scaleOf(32, 16, 0, 'standard')).toBe(2);
    expect(scaleOf(32, 16, 0, 'rslora')).toBe(8);
    expect(scaleOf(40, 16, 4, 'standard')).toBe(2);
    expect(scaleOf(20, 12, 4, 'rslora')).toBe(5);
  });
});

describe('refused', () => {
  it.each<[Partial<StructureOptions>, RegExp]>([
    [{ rank: 0 }, /rank is 0, expected an integer from 1/],
    [{ rank: 2.5 }, /rank is 2.5/],
    [{ rank: Number.NaN }, /rank is NaN/],
    [{ rank: 1e9 }, /rank is 1000000000/],
    [{ blocks: 0 }, /blocks is 0/],
    [{ blocks: -4 }, /blocks is -4/],
    [{ hybridRank: -1 }, /hybrid rank is -1/],
    [{ hybridRank: 0.5 }, /hybrid rank is 0.5/],
    [{ rank: 10, blocks: 4 }, /rank 10 is not a multiple of blocks 4/],
  ])('are ranks and blocks out of range: %o', async (options, message) => {
    expect((await failure(() => plan(64, 64, options), 'invalid-argument')).message).toMatch(
      message,
    );
  });

  it('with a rank that would do', async () => {
    const error = await failure(() => plan(64, 64, { rank: 10, blocks: 4 }), 'invalid-argument');
    expect(error.hint).toContain('rank 12');
  });

  it('is no rank that only a localized structure would have to share', () => {
    expect(plan(64, 64, { structure: 'diagonal', rank: 10 }).blockRank).toBe(10);
    expect(plan(64, 64, { structure: 'global', rank: 10 }).blockRank).toBe(10);
  });
});
