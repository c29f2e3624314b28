/** The adapters of the parts of a layer as one: for formats and slots that have one of a layer. */
import { type LayerPart, structureOf } from '../structure/structure.js';
import { factorsOf, type NewAdapter } from './factors.js';
import { plainFactors, plainRank } from './plain.js';

type Numbers = Pick<NewAdapter, 'record' | 'values'>;

/**
 * Puts one adapter in the place of those that change parts of the same layer, where the first of them
 * stands; the others stay as they are.
 * @param layerOf what is the same for adapters of one layer
 * @param nameOf the name of the one for all
 */
export function joinParts<T extends Numbers>(
  adapters: readonly T[],
  layerOf: (adapter: T) => unknown,
  nameOf: (adapter: T) => string,
): T[] {
  const groups = new Map<unknown, T[]>();
  for (const adapter of adapters) {
    const key = adapter.record.part ? layerOf(adapter) : adapter;
    groups.set(key, [...(groups.get(key) ?? []), adapter]);
  }
  return [...groups.values()].map((group) => {
    const [first] = group as [T];
    return first.record.part ? { ...first, ...joined(group, nameOf(first)) } : first;
  });
}

/** One block, its ranks one part after the other: zeros outside of a part's columns, scales in B. */
function joined(parts: readonly Numbers[], name: string): Numbers {
  const { record } = parts[0]!;
  const { part: _, ...shared } = record;
  const out = record.part!.of;
  const ranks = parts.map((one) => plainRank(structureOf(one.record)));
  const rank = ranks.reduce((sum, one) => sum + one, 0);
  return {
    record: {
      ...{ ...shared, name, out, structure: 'global', grid: [1, 1], rank, blockRank: rank },
      ...{ hybridRank: 0, alpha: rank, scaling: 'standard', scale: 1 },
    },
    values: (factor) => {
      const isA = factor === 'a';
      const values = new Float64Array(isA ? record.in * rank : rank * out);
      let at = 0;
      for (const one of parts) {
        const plain = plainFactors(structureOf(one.record), factorsOf(one));
        if (isA) putA(plain, at, { values, rank, rows: record.in });
        else putB(one.record.scale, plain.b, at, { values, out }, one.record.part!, one.record.out);
        at += plain.rank;
      }
      return values;
    },
  };
}

function putA(
  { a, rank: own }: { a: Float64Array; rank: number },
  at: number,
  { values, rank, rows }: { values: Float64Array; rank: number; rows: number },
): void {
  for (let row = 0; row < rows; row++) {
    values.set(a.subarray(row * own, (row + 1) * own), row * rank + at);
  }
}

function putB(
  scale: number,
  b: Float64Array,
  at: number,
  { values, out }: { values: Float64Array; out: number },
  { first }: LayerPart,
  width: number,
): void {
  for (let i = 0; i < b.length / width; i++) {
    const row = b.subarray(i * width, (i + 1) * width).map((value) => scale * value);
    values.set(row, (at + i) * out + first);
  }
}
