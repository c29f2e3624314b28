/** The weighted sum of several adapters of one layer, exactly: factors side by side. */

import { factorsOf } from '../factors/factors.js';
import type { Factors } from '../factors/norms.js';
import { plainFactors, plainRank } from '../factors/plain.js';
import { blockTerms, generalTerms, putTerm, type Term } from '../factors/terms.js';
import type { StoredAdapter } from '../files/adapter-file.js';
import type { AdapterShape } from '../model/manifest.js';
import { type Structure, shapeOfA, shapeOfB, structureOf } from '../structure/structure.js';

/** An adapter of a layer, and what its ΔW is multiplied with. */
export interface Contribution {
  readonly adapter: Pick<StoredAdapter, 'record' | 'values'>;
  readonly weight: number;
}

/** A sum of adapters as an adapter, to be scaled by 1. */
export interface Concatenation {
  readonly structure: Structure;
  /** R, the rank of the LoRA that has as many parameters. */
  readonly rank: number;
  factors(): Factors;
}

/** Whether the blocks of all adapters lie alike, so that their sum has such blocks too. */
export function areAlike(contributions: readonly Contribution[]): boolean {
  const [first, ...others] = contributions.map(({ adapter }) => adapter.record);
  return others.every(
    ({ structure, grid }) => structure === first!.structure && grid.join() === first!.grid.join(),
  );
}

/**
 * The sum of adapters, in their own structure where they are alike, else as plain LoRA; its ranks are
 * the sums of theirs. Weight and scale are multiplied into A: what PEFT's `add_weighted_adapter` calls
 * `cat`.
 */
export function concatenated(contributions: readonly Contribution[]): Concatenation {
  const parts = areAlike(contributions) ? contributions : contributions.map(asPlain);
  const records = parts.map(({ adapter }) => adapter.record);
  const total = (of: (record: AdapterShape) => number) =>
    records.reduce((sum, record) => sum + of(record), 0);
  const structure = {
    ...structureOf(records[0]!),
    blockRank: total(({ blockRank }) => blockRank),
    hybridRank: total(({ hybridRank }) => hybridRank),
  };
  const rank = total((record) => record.rank);
  return { structure, rank, factors: () => sideBySide(structure, parts) };
}

const PLAIN = { structure: 'global', grid: [1, 1], hybridRank: 0 } as const;

function asPlain({ adapter, weight }: Contribution): Contribution {
  const { record } = adapter;
  const structure = structureOf(record);
  const rank = plainRank(structure);
  const values = (factor: string) => {
    const factors = plainFactors(structure, factorsOf(adapter));
    return factor === 'a' ? factors.a : factors.b;
  };
  return { weight, adapter: { record: { ...record, ...PLAIN, rank, blockRank: rank }, values } };
}

function sideBySide(structure: Structure, parts: readonly Contribution[]): Factors {
  const { hybridRank } = structure;
  const general = { ...structure, ...PLAIN, blockRank: hybridRank };
  const grid = zerosFor(structure);
  const whole = zerosFor(general);
  const at = { grid: 0, general: 0 };
  for (const { adapter, weight } of parts) {
    const own = structureOf(adapter.record);
    const factors = factorsOf(adapter);
    const factor = weight * adapter.record.scale;
    const scaled = (term: Term, index: number) => ({
      ...term,
      index: term.index + index,
      column: term.column.map((value) => value * factor),
    });
    for (const term of blockTerms(own, factors)) putTerm(structure, grid, scaled(term, at.grid));
    for (const term of generalTerms(own, factors))
      putTerm(general, whole, scaled(term, at.general));
    at.grid += own.blockRank;
    at.general += own.hybridRank;
  }
  return hybridRank > 0 ? { ...grid, generalA: whole.a, generalB: whole.b } : grid;
}

function zerosFor(structure: Structure) {
  const zeros = (shape: readonly number[]) => new Float64Array(shape.reduce((x, y) => x * y, 1));
  return { a: zeros(shapeOfA(structure)), b: zeros(shapeOfB(structure)) };
}
