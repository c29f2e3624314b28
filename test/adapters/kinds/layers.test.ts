/**
 * Adapters of every kind beside random layers: the nodes beside a layer and the fold into its weight are
 * written apart, and compute the same.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NewAdapter } from '../../../src/adapters/factors/factors.js';
import type { KindName } from '../../../src/adapters/structure/choices.js';
import { structures } from '../../../src/adapters/structure/structure.js';
import { foldAdapters } from '../../../src/commands/merge.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { insertInto, randomNumbers, trained } from '../../support/adapters.js';
import { temporaryFolder } from '../../support/files.js';
import {
  dtypesOf,
  type LinearCase,
  kinds as layerKinds,
  linearModel,
  weightForms,
} from '../../support/linear.js';
import { expectSame, maxAbs, maxDifference, run } from '../../support/run.js';

const folder = temporaryFolder();

// PROPERTY_RUNS=20 runs every property twenty times as long.
const MORE = Number(process.env.PROPERTY_RUNS ?? 1);

/** A packed weight has no numbers that nodes could read. */
const unpacked = layerKinds.filter((kind) => kind !== 'MatMulNBits');

const options = fc
  .record({
    structure: fc.constantFrom(...structures),
    blocks: fc.integer({ min: 1, max: 3 }),
    blockRank: fc.integer({ min: 1, max: 2 }),
    hybrid: fc.constantFrom(0, 0, 1),
    alpha: fc.constantFrom(1, 3),
  })
  .map(({ blockRank, ...rest }) => ({ ...rest, rank: blockRank * rest.blocks, targets: ['all'] }));

const cases = fc.constantFrom(...unpacked).chain((kind) =>
  fc.record({
    kind: fc.constant(kind),
    dtype: fc.constantFrom(...dtypesOf(kind)),
    opset: fc.integer({ min: kind === 'DequantizeLinear' ? 10 : 7, max: 23 }),
    in: fc.integer({ min: 1, max: 12 }),
    out: fc.integer({ min: 1, max: 12 }),
    leading: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
    fixed: fc.boolean(),
    weightForm: fc.constantFrom(...weightForms),
    transA: fc.boolean(),
    transB: fc.boolean(),
    alpha: fc.constantFrom(1, 0.5, -2),
    stride: fc.constantFrom(1, 2),
    bias: fc.boolean(),
    seed: fc.integer({ min: 1, max: 1e6 }),
    adapter: options,
  }),
);
type Case = LinearCase & { readonly adapter: Parameters<typeof insertInto>[1] };

const EPSILON = { float32: 2 ** -24, float16: 2 ** -11, float64: 2 ** -53, bfloat16: 2 ** -8 };

/** ONNX Runtime's ReduceL2 has about ten digits in float64. */
const NORMS: Readonly<Record<KindName, number>> = { lora: 0, dora: 2 ** -31, hira: 0 };

/**
 * Adapters with random numbers in all of their tensors; magnitudes are positive. DoRA divides by the norm of W + ΔW: of
 * one feature the two may cancel and leave no digits, so that ΔW is small there.
 */
const random = (kind: KindName, c: Case) => (planned: readonly NewAdapter[]) =>
  trained(planned, c.seed, kind === 'dora' && c.in === 1 ? 2 ** -6 : 0.5).map((adapter) => {
    if (kind !== 'dora') return adapter;
    const magnitude = () => randomNumbers(c.seed, adapter.record.out).map((m) => 1.5 + m);
    return { ...adapter, own: { magnitude } };
  });

function patched(kind: KindName, c: Case, bytes: Uint8Array): Promise<Uint8Array> {
  return insertInto(bytes, { ...c.adapter, kind, factors: random(kind, c) });
}

describe.each<KindName>(['dora', 'hira'])('%s beside any linear layer', (kind) => {
  it('computes what its fold computes, and comes off bit for bit', () =>
    fc.assert(
      fc.asyncProperty(cases, async (c) => {
        const { bytes, feeds, stored } = linearModel(c);
        const path = folder.write(await patched(kind, c, bytes));
        const merged = folder.fresh();
        await foldAdapters(path, { output: merged });
        const expected = (await run(merged, feeds)).y!.data;
        const epsilon = Math.max(EPSILON[c.dtype], EPSILON[stored], NORMS[kind]);
        // Sums of as many products as there are features, with weights of up to 2.
        const limit = 32 * epsilon * (maxAbs(expected) + 2 * c.in * Math.abs(c.alpha) + 1);
        for (const optimization of ['disabled', 'all'] as const) {
          const found = (await run(path, feeds, optimization)).y!.data;
          expect(maxDifference(found, expected)).toBeLessThanOrEqual(limit);
        }
        const base = folder.fresh();
        await unpatch(path, { output: base });
        expect(readFileSync(base).equals(bytes)).toBe(true);
      }),
      { numRuns: 40 * MORE },
    ));
});

it('HiRA changes nothing while B is zero: max|Δ| = 0', () =>
  fc.assert(
    fc.asyncProperty(cases, async (c) => {
      // A dequantized weight that two nodes read is not drawn into the layer's kernel any more.
      fc.pre(c.kind !== 'DequantizeLinear');
      const { bytes, feeds } = linearModel(c);
      const model = await insertInto(bytes, { ...c.adapter, kind: 'hira' });
      for (const optimization of ['disabled', 'all'] as const) {
        expectSame(await run(model, feeds, optimization), await run(bytes, feeds, optimization));
      }
    }),
    { numRuns: 30 * MORE },
  ));
