/**
 * What an adapter does, for random layers, structures and numbers: the patched model computes
 * `Y + X·ΔW`, with ΔW formed here block by block as DESIGN §2 defines it.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AdapterOptions } from '../../src/adapters/edit/new-adapters.js';
import type { NewAdapter } from '../../src/adapters/factors/factors.js';
import { planStructure, structures } from '../../src/adapters/structure/structure.js';
import { foldAdapters } from '../../src/commands/merge.js';
import { unpatch } from '../../src/commands/unpatch.js';
import type { FloatName } from '../../src/onnx/dtype.js';
import { insertInto, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { dtypesOf, kinds, type LinearCase, linearModel, weightForms } from '../support/linear.js';
import { expectSame, maxAbs, maxDifference, run } from '../support/run.js';

const folder = temporaryFolder();
const EPSILON: Partial<Record<FloatName, number>> = {
  float32: 2 ** -24,
  float16: 2 ** -11,
  float64: 2 ** -53,
};

interface Case extends LinearCase {
  readonly adapter: AdapterOptions & { readonly rank: number; readonly blocks: number };
}

const adapterOptions = fc
  .record({
    structure: fc.constantFrom(...structures),
    blocks: fc.integer({ min: 1, max: 4 }),
    blockRank: fc.integer({ min: 1, max: 3 }),
    hybrid: fc.constantFrom(0, 0, 1, 3),
    scaling: fc.constantFrom('standard', 'rslora'),
    alpha: fc.constantFrom(1, 3, 10),
  })
  .map(({ blockRank, ...options }) => ({
    ...options,
    rank: blockRank * options.blocks,
    targets: ['all'],
  }));

// Small enough to be divided in every way, or large enough for the kernels' own blocks: products are
// summed over 256 features at a time, and one output has a kernel of its own.
const size = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 24 }) },
  fc.constantFrom(1, 64, 130, 260),
);

/**
 * The base model's product becomes a kernel that rounds its input to 8 bits. Beside an adapter it does
 * not: matrices of fixed sizes draw the adapter's Add in.
 */
function isApproximate({ kind, bias, leading, fixed }: LinearCase): boolean {
  return kind === 'DequantizeLinear' && !bias && leading.length === 1 && fixed;
}

const anyCase = fc.constantFrom(...kinds).chain((kind) =>
  fc.record({
    kind: fc.constant(kind),
    dtype: fc.constantFrom(...dtypesOf(kind)),
    // DequantizeLinear begins with 10.
    opset: fc.integer({ min: kind === 'DequantizeLinear' ? 10 : 7, max: 23 }),
    in: size,
    out: size,
    leading: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
    fixed: fc.boolean(),
    weightForm: fc.constantFrom(...weightForms),
    transA: fc.boolean(),
    transB: fc.boolean(),
    alpha: fc.constantFrom(1, 0.5, -2),
    stride: fc.constantFrom(1, 2),
    bias: fc.boolean(),
    seed: fc.integer({ min: 1, max: 1e6 }),
    adapter: adapterOptions,
  }),
) satisfies fc.Arbitrary<Case>;
const linearCase = anyCase.filter((c) => !isApproximate(c));

/** ΔW [in, out] from the definition. `magnitude` takes the absolute value of every number. */
function deltaWeight({ record, values }: NewAdapter, magnitude = false): Float64Array {
  const { structure, grid, blockRank: r, hybridRank: h, in: rows, out: columns } = record;
  const [kIn, kOut] = grid;
  const [height, width] = [rows / kIn, columns / kOut];
  const isDiagonal = structure === 'diagonal';
  const [widthOfA, heightOfB] = isDiagonal ? [r, r] : [kOut * r, kIn * r];
  const numbers = (factor: 'a' | 'b' | 'generalA' | 'generalB') =>
    magnitude ? values(factor).map(Math.abs) : values(factor);
  const [a, b] = [numbers('a'), numbers('b')];
  const scale = magnitude ? Math.abs(record.scale) : record.scale;
  const delta = new Float64Array(rows * columns);
  for (let n = 0; n < kIn; n++) {
    for (let j = 0; j < kOut; j++) {
      if (isDiagonal && n !== j) continue;
      const [columnOfA, rowOfB] = isDiagonal ? [0, 0] : [j * r, n * r];
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          let sum = 0;
          for (let i = 0; i < r; i++) {
            const inA = (n * height + y) * widthOfA + columnOfA + i;
            const inB = (j * heightOfB + rowOfB + i) * width + x;
            sum += a[inA]! * b[inB]!;
          }
          delta[(n * height + y) * columns + j * width + x] = scale * sum;
        }
      }
    }
  }
  if (h === 0) return delta;
  const general = multiply(numbers('generalA'), numbers('generalB'), h, columns);
  return delta.map((value, i) => value + scale * general[i]!);
}

function multiply(left: Float64Array, right: Float64Array, inner: number, columns: number) {
  const rows = left.length / inner;
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let i = 0; i < inner; i++) {
        result[row * columns + column]! += left[row * inner + i]! * right[i * columns + column]!;
      }
    }
  }
  return result;
}

/** The patched model, and the adapter that is in it. */
async function patched(c: Case, bytes: Uint8Array) {
  let adapter: NewAdapter | undefined;
  const model = await insertInto(bytes, {
    ...c.adapter,
    factors: (planned) => {
      const [made] = trained(planned, c.seed, 0.5);
      adapter = made;
      return [made!];
    },
  });
  return { model, adapter: adapter! };
}

// PROPERTY_RUNS=20 runs every property twenty times as long.
const MORE = Number(process.env.PROPERTY_RUNS ?? 1);
const check = (numRuns: number, property: (c: Case) => Promise<void>) =>
  fc.assert(fc.asyncProperty(linearCase, property), { numRuns: numRuns * MORE });

/** |X|·|W| of the layer at most: inputs are below 1, weights below 2. */
function largestBase(c: Case): number {
  return 2 * c.in * Math.abs(c.alpha);
}

const optimizations = ['disabled', 'basic', 'all'] as const;

describe('an adapter beside any linear layer', () => {
  it('adds X·ΔW to its output', () =>
    check(200, async (c) => {
      const { bytes, feeds, rows, rowsOf } = linearModel(c);
      const { model, adapter } = await patched(c, bytes);
      const expected = multiply(rows, deltaWeight(adapter), c.in, c.out);
      const most = maxAbs(multiply(rows.map(Math.abs), deltaWeight(adapter, true), c.in, c.out));
      for (const optimization of optimizations) {
        const before = rowsOf((await run(bytes, feeds, optimization)).y!);
        const after = rowsOf((await run(model, feeds, optimization)).y!);
        const added = after.map((value, i) => value - before[i]!);
        const limit = 8 * EPSILON[c.dtype]! * (most + maxAbs(after) + largestBase(c));
        expect(maxDifference(added, expected)).toBeLessThanOrEqual(limit);
      }
    }));

  it('changes nothing while B is zero: max|Δ| = 0', () =>
    check(200, async (c) => {
      const { bytes, feeds } = linearModel(c);
      const model = await insertInto(bytes, c.adapter);
      for (const optimization of optimizations) {
        const base = await run(bytes, feeds, optimization);
        const start = await run(model, feeds, optimization);
        expectSame(start, base);
      }
    }));

  it('folds into the weight, to the rounding of its type', () =>
    check(60, async (c) => {
      const { bytes, feeds, rows, stored, rowsOf } = linearModel(c);
      const { model, adapter } = await patched(c, bytes);
      const path = folder.write(model);
      const merged = folder.fresh();
      await foldAdapters(path, { output: merged });
      const expected = rowsOf((await run(model, feeds)).y!);
      const found = rowsOf((await run(merged, feeds)).y!);
      const most = maxAbs(multiply(rows.map(Math.abs), deltaWeight(adapter, true), c.in, c.out));
      const epsilon = Math.max(EPSILON[c.dtype]!, EPSILON[stored]!);
      const limit = 8 * epsilon * (most + maxAbs(expected) + largestBase(c));
      expect(maxDifference(found, expected)).toBeLessThanOrEqual(limit);
    }));

  it('can be taken out again, which gives the file back', () =>
    check(40, async (c) => {
      const { bytes } = linearModel(c);
      const path = folder.write((await patched(c, bytes)).model);
      const output = folder.fresh();
      await unpatch(path, { output });
      expect(readFileSync(output).equals(bytes)).toBe(true);
    }));
});

/** The columns of a layer up to one that the seed says, and those from there on, each with an adapter. */
function inParts({ adapter, seed, out }: Case, [planned]: readonly NewAdapter[]): NewAdapter[] {
  const cut = 1 + (seed % Math.max(1, out - 1));
  const { record } = planned!;
  const stretches = [
    { name: 'left', first: 0, width: Math.min(cut, out) },
    { name: 'right', first: cut, width: out - cut },
  ].filter(({ width }) => width > 0);
  const parts = stretches.map(({ name, first, width }) => {
    const { structure = 'localized', hybrid: hybridRank, rank, blocks } = adapter;
    const plan = planStructure(record.in, width, { structure, rank, blocks, hybridRank });
    return { ...planned!, record: { ...record, ...plan, name, part: { first, of: out } } };
  });
  return parts;
}

function withoutB({ values, ...adapter }: NewAdapter): NewAdapter {
  const isB = (factor: string) => factor === 'b' || factor === 'generalB';
  return { ...adapter, values: (factor) => values(factor).map((x) => (isB(factor) ? 0 : x)) };
}

/** ΔW of all parts, in their columns. */
function deltaOfParts(parts: readonly NewAdapter[], c: Case, magnitude = false): Float64Array {
  const delta = new Float64Array(c.in * c.out);
  for (const part of parts) {
    const own = deltaWeight(part, magnitude);
    const { out } = part.record;
    for (let row = 0; row < c.in; row++) {
      const columns = own.subarray(row * out, (row + 1) * out);
      delta.set(columns, row * c.out + part.record.part!.first);
    }
  }
  return delta;
}

describe('adapters of the parts of a linear layer', () => {
  it.each([
    ['change nothing while B is zero: max|Δ| = 0', 'fresh'],
    ['add X·ΔW to their columns', 'patched'],
    ['fold into their columns', 'folded'],
    ['can be taken out again, which gives the file back', 'unpatched'],
  ])('%s', (_, what) =>
    check(what === 'unpatched' ? 20 : 50, async (c) => {
      if (c.kind === 'Conv') return;
      const { bytes, feeds, rows, stored, rowsOf } = linearModel(c);
      let parts: NewAdapter[] = [];
      const factors = (planned: readonly NewAdapter[]) => {
        const fresh = inParts(c, planned);
        parts = trained(fresh, c.seed, 0.5);
        return what === 'fresh' ? parts.map(withoutB) : parts;
      };
      const path = folder.write(await insertInto(bytes, { ...c.adapter, factors }));
      if (what === 'fresh') {
        expectSame(await run(path, feeds), await run(bytes, feeds));
        return;
      }
      const output = folder.fresh();
      if (what === 'unpatched') {
        await unpatch(path, { output });
        expect(readFileSync(output).equals(bytes)).toBe(true);
        return;
      }
      if (what === 'folded') await foldAdapters(path, { output });
      const most = maxAbs(multiply(rows.map(Math.abs), deltaOfParts(parts, c, true), c.in, c.out));
      const before = rowsOf((await run(bytes, feeds)).y!);
      const after = rowsOf((await run(what === 'folded' ? output : path, feeds)).y!);
      const added = after.map((value, i) => value - before[i]!);
      const expected = multiply(rows, deltaOfParts(parts, c), c.in, c.out);
      const epsilon = Math.max(EPSILON[c.dtype]!, what === 'folded' ? EPSILON[stored]! : 0);
      const limit = 8 * epsilon * (most + maxAbs(after) + largestBase(c));
      expect(maxDifference(added, expected)).toBeLessThanOrEqual(limit);
    }),
  );
});
