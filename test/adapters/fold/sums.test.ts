import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { BaseWeight } from '../../../src/adapters/fold/base-weight.js';
import { foldedWeight } from '../../../src/adapters/fold/folded-weight.js';
import { RowFactors } from '../../../src/adapters/fold/row-factors.js';
import { sums } from '../../../src/adapters/fold/sums.js';
import {
  planStructure,
  type Structure,
  shapeOfA,
  shapeOfB,
  structures,
} from '../../../src/adapters/structure/structure.js';
import { type FloatName, fromFloat64, toFloat64 } from '../../../src/onnx/dtype.js';
import { collect } from '../../../src/onnx/edit.js';
import { randomNumbers } from '../../support/adapters.js';
import { maxDifference } from '../../support/run.js';

const size = fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(64, 130));

const cases = fc.record({
  dtype: fc.constantFrom<FloatName>('float32', 'float64', 'float16', 'bfloat16'),
  in: size,
  out: size,
  structure: fc.constantFrom(...structures),
  blocks: fc.integer({ min: 1, max: 4 }),
  blockRank: fc.integer({ min: 1, max: 6 }),
  hybridRank: fc.constantFrom(0, 0, 1, 5),
  transposed: fc.boolean(),
  seed: fc.integer({ min: 1, max: 1e6 }),
});
type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

const elements = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

function example(c: Case) {
  const structure = planStructure(c.in, c.out, { ...c, rank: c.blockRank * c.blocks });
  const numbers = (offset: number, count: number) => randomNumbers(c.seed + offset, count);
  const factors = {
    a: numbers(0, elements(shapeOfA(structure))),
    b: numbers(1, elements(shapeOfB(structure))),
    generalA: numbers(2, c.in * c.hybridRank),
    generalB: numbers(3, c.hybridRank * c.out),
  };
  const [rows, columns] = c.transposed ? [c.out, c.in] : [c.in, c.out];
  const bytes = fromFloat64(c.dtype, numbers(4, rows * columns));
  const width = bytes.length / rows;
  const readRows = (start: number, end: number) => bytes.slice(start * width, end * width);
  const weight: BaseWeight = { dtype: c.dtype, rows, columns, readRows };
  const stored = toFloat64(c.dtype, bytes.slice(), rows * columns);
  const expected = stored.map((value, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns];
    const [y, x] = c.transposed ? [column, row] : [row, column];
    return value + SCALE * deltaAt(structure, factors, y, x);
  });
  return {
    weight,
    delta: new RowFactors(structure, factors, SCALE, c.transposed),
    stored,
    expected,
  };
}

const SCALE = 0.5;

/** (A · B)[y, x], from the definition. */
function deltaAt(
  { structure, grid, blockRank: r, hybridRank, in: height, out: width }: Structure,
  f: { a: Float64Array; b: Float64Array; generalA: Float64Array; generalB: Float64Array },
  y: number,
  x: number,
): number {
  const [h, w] = [height / grid[0], width / grid[1]];
  const [n, j] = [Math.floor(y / h), Math.floor(x / w)];
  let sum = 0;
  for (let i = 0; i < hybridRank; i++)
    sum += f.generalA[y * hybridRank + i]! * f.generalB[i * width + x]!;
  if (structure === 'diagonal' && n !== j) return sum;
  const a = structure === 'diagonal' ? y * r : y * grid[1] * r + j * r;
  const b = structure === 'diagonal' ? n * r : (j * grid[0] + n) * r;
  for (let i = 0; i < r; i++) sum += f.a[a + i]! * f.b[(b + i) * w + (x % w)]!;
  return sum;
}

async function collected(weight: BaseWeight, deltas: readonly RowFactors[]) {
  const all = new Float64Array(weight.rows * weight.columns);
  for await (const { start, panel } of sums(weight, deltas)) {
    all.set(panel.after, start * weight.columns);
  }
  return all;
}

function expectNear(found: Float64Array, expected: Float64Array): void {
  expect(maxDifference(found, expected)).toBeLessThan(1e-12);
}

it('adds ΔW to a weight of any type, in the layout of the file', () =>
  fc.assert(
    fc.asyncProperty(cases, async (c) => {
      const { weight, delta, expected } = example(c);
      expectNear(await collected(weight, [delta]), expected);
    }),
  ));

it('adds several adapters', async () => {
  const c = { in: 12, out: 9, structure: 'localized', blocks: 3, blockRank: 2 } as const;
  const more = { dtype: 'float32', hybridRank: 1, transposed: false, seed: 1 } as const;
  const { weight, delta, stored, expected } = example({ ...c, ...more });
  const twice = stored.map((value, i) => 2 * expected[i]! - value);
  expectNear(await collected(weight, [delta, delta]), twice);
});

it('keeps folds that run at the same time apart', async () => {
  // Rows of which a panel holds a few only.
  const wide = { in: 20, out: 6000, structure: 'localized', blocks: 2, blockRank: 1 } as const;
  const more = { dtype: 'float32', hybridRank: 0, transposed: false } as const;
  const [one, other] = [1, 2].map((seed) => example({ ...wide, ...more, seed }));
  const both = await Promise.all([one!, other!].map((e) => collected(e.weight, [e.delta])));
  expectNear(both[0]!, one!.expected);
  expectNear(both[1]!, other!.expected);
});

it('rounds a folded weight once, and gives the norms of what was there and what was added', () =>
  fc.assert(
    fc.asyncProperty(cases, async (c) => {
      const { weight, delta, stored, expected } = example(c);
      const norms = { delta: 0, weight: 0 };
      const folded = foldedWeight({
        ...{ weight, deltas: () => [delta], own: [], factor: 1, transposed: c.transposed },
        ...{ norms, label: 'layer' },
      });
      const bytes = await collect([folded]);
      const sum = await collected(weight, [delta]);
      expect(Buffer.compare(bytes, fromFloat64(c.dtype, sum))).toBe(0);
      const added = expected.map((value, i) => value - stored[i]!);
      expect(norms.weight).toBeCloseTo(norm(stored), 9);
      expect(norms.delta).toBeCloseTo(norm(added), 9);
    }),
  ));

function norm(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
}
