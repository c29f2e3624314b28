/**
 * Projections that an ONNX model computes in one layer and PyTorch in several: their outputs lie side
 * by side, so the adapters do too.
 */

import {
  type FactorName,
  factorsOf,
  type NewAdapter,
  type OwnNumbers,
} from '../factors/factors.js';
import { plainFactors, plainRank } from '../factors/plain.js';
import type { StoredAdapter } from '../files/adapter-file.js';
import { kindEntry, kindOf } from '../kinds/index.js';
import { numbersOf, ownTensors } from '../kinds/tensors.js';
import type { Layer } from '../model/layers.js';
import { structureOf } from '../structure/structure.js';
import type { FusedPlace } from '../targets/fusions.js';

/** An adapter of one part of a fused layer. */
export interface Member {
  readonly place: FusedPlace;
  readonly adapter: StoredAdapter;
}

/** The adapters of the parts, from the first column on; undefined for a part that has none. */
type Parts = readonly (StoredAdapter | undefined)[];

/**
 * The adapters of the parts of a fused layer, each in its own columns; a part without one stays as it is. Beside
 * a convolution there is one for all of them. Parts of one width are then a
 * grid of as many columns of blocks; others are stacked into one block that is zero where a part has
 * nothing to do.
 * @param shown the widths of the parts, where the graph shows them
 * @returns the problem where they do not fit the layer or each other
 */
export function fuseAdapters(
  layer: Layer,
  members: readonly Member[],
  shown?: readonly number[],
): NewAdapter[] | string {
  const { weight, geometry } = layer.linear[0]!;
  const parts: (StoredAdapter | undefined)[] = Array(members[0]!.place.parts).fill(undefined);
  for (const { place, adapter } of members) {
    const { name, in: inSize } = adapter.record;
    const other = parts[place.part];
    if (other) return `${other.record.name} and ${name} are the same part of ${layer.module}`;
    if (inSize !== weight.in)
      return `${name} has ${inSize} inputs, ${layer.module} has ${weight.in}`;
    parts[place.part] = adapter;
  }
  const widths = partWidths(weight.out, parts, shown);
  if (typeof widths === 'string') return `${layer.module} has ${weight.out} outputs, and ${widths}`;
  const kinds = new Set(present(parts).map(({ record }) => kindOf(record)));
  const areOwn = kinds.size === 1 || ![...kinds].some(({ readsWeight }) => readsWeight);
  if (areOwn && geometry.kind !== 'channels') return partAdapters(layer, widths, parts);
  const own = fusedOwn(parts);
  if (typeof own === 'string') return own;
  const kind = kindEntry(kindOf(present(parts)[0]!.record).name);
  const name = { name: layer.module, weight: weight.name, ...kind, in: weight.in, out: weight.out };
  const fused = isGrid(widths, parts) ? asGrid(name, parts) : asStack(name, widths, parts);
  return [{ layer, ...fused, own }];
}

function partAdapters(layer: Layer, widths: readonly number[], parts: Parts): NewAdapter[] {
  const { name: weight, out } = layer.linear[0]!.weight;
  return parts.flatMap((one, i) => {
    if (!one) return [];
    const first = widths.slice(0, i).reduce((sum, width) => sum + width, 0);
    const { values, own } = one;
    return [{ layer, record: { ...one.record, weight, part: { first, of: out } }, values, own }];
  });
}

const present = (parts: Parts) => parts.filter((one) => one !== undefined);

/** The widths of the parts: those that the graph shows, else those that the adapters leave. */
function partWidths(
  out: number,
  parts: Parts,
  shown: readonly number[] | undefined,
): readonly number[] | string {
  const known = (part: number) => parts[part]?.record.out;
  const widths =
    shown?.length === parts.length
      ? shown
      : guessedWidths(
          out,
          parts.map((_, i) => known(i)),
        );
  const fits = widths.every((width, part) => {
    return Number.isInteger(width) && width > 0 && width === (known(part) ?? width);
  });
  const given = present(parts).map(({ record }) => `${record.name} ${record.out}`);
  return fits ? widths : `these are not parts of it: ${given.join(', ')}`;
}

/** Keys are as wide as values, a gate as what it gates; queries take the rest. */
function guessedWidths(out: number, known: readonly (number | undefined)[]): number[] {
  if (known.length !== 3) return [out / 2, out / 2];
  const each = known[2] ?? known[1] ?? (out - known[0]!) / 2;
  return [out - 2 * each, each, each];
}

/** The tensors that a kind has beside the factors: all parts must have them, one after the other. */
function fusedOwn(parts: Parts): OwnNumbers | string {
  const first = parts.find((one) => one && ownTensors(one.record).length > 0);
  if (!first) return {};
  const { beyondFactors } = kindOf(first.record);
  if (parts.some((one) => !one || kindOf(one.record) !== kindOf(first.record))) {
    return `${first.record.name} has ${beyondFactors}, and other parts of the same layer have none`;
  }
  const entries = ownTensors(first.record).map(({ key }) => {
    return [key, () => concatenated(parts.map((one) => numbersOf(one!, key)))] as const;
  });
  return Object.fromEntries(entries);
}

function concatenated(arrays: readonly Float64Array[]): Float64Array {
  const result = new Float64Array(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const array of arrays) {
    result.set(array, at);
    at += array.length;
  }
  return result;
}

type Fused = Pick<NewAdapter, 'record' | 'values'>;
type Name = Pick<NewAdapter['record'], 'name' | 'weight' | 'kind' | 'in' | 'out'>;

function isGrid(widths: readonly number[], parts: Parts): boolean {
  const records = present(parts).map(({ record }) => record);
  const kind = ({ grid, blockRank, hybridRank, scale }: StoredAdapter['record']) =>
    [grid, blockRank, hybridRank, scale].join();
  return (
    widths.every((width) => width === widths[0]) &&
    records.every((one) => one.structure !== 'diagonal' && kind(one) === kind(records[0]!))
  );
}

/** Kin x (parts · Kout) blocks. B's columns of blocks come one after the other, A's side by side. */
function asGrid(name: Name, parts: Parts): Fused {
  const { grid, blockRank, hybridRank, scale, scaling } = present(parts)[0]!.record;
  const [kIn, kOut] = grid;
  const width = name.out / parts.length;
  const rank = parts.length * kOut * blockRank;
  const general = parts.length * hybridRank;
  const numbers = (factor: FactorName, size: number) =>
    parts.map((one) => one?.values(factor) ?? new Float64Array(size));
  return {
    record: {
      ...name,
      ...{ structure: 'localized', grid: [kIn, parts.length * kOut], rank, blockRank },
      ...{ hybridRank: general, alpha: scale * (rank + general), scaling, scale },
    },
    values: (factor) => {
      switch (factor) {
        case 'a':
          return sideBySide(numbers('a', name.in * kOut * blockRank), name.in);
        case 'b':
          return concatenated(numbers('b', kIn * blockRank * width));
        case 'generalA':
          return sideBySide(numbers('generalA', name.in * hybridRank), name.in);
        case 'generalB': {
          const blocks = numbers('generalB', hybridRank * width);
          return onDiagonal(blocks.map((values) => ({ values, rows: hybridRank, columns: width })));
        }
      }
    },
  };
}

/** One block; where scales differ they are multiplied into B. */
function asStack(name: Name, widths: readonly number[], parts: Parts): Fused {
  const records = present(parts).map(({ record }) => record);
  const rank = records.reduce((sum, record) => sum + plainRank(structureOf(record)), 0);
  const { scale: first } = records[0]!;
  const isCommon = records.every((record) => record.scale === first);
  const scale = isCommon ? first : 1;
  const plain = (one: StoredAdapter) => plainFactors(structureOf(one.record), factorsOf(one));
  return {
    record: {
      ...name,
      ...{ structure: 'global', grid: [1, 1], rank, blockRank: rank, hybridRank: 0 },
      ...{ alpha: scale * rank, scaling: 'standard', scale },
    },
    values: (factor) => {
      if (factor === 'a')
        return sideBySide(
          present(parts).map((one) => plain(one).a),
          name.in,
        );
      return onDiagonal(
        parts.map((one, part) => {
          const columns = widths[part]!;
          if (!one) return { values: new Float64Array(0), rows: 0, columns };
          const { b, rank: rows } = plain(one);
          const own = isCommon ? 1 : one.record.scale;
          return { values: b.map((value) => own * value), rows, columns };
        }),
      );
    },
  };
}

/** Matrices of the same number of rows next to each other. */
function sideBySide(matrices: readonly Float64Array[], rows: number): Float64Array {
  const columns = matrices.map(({ length }) => length / rows);
  const total = columns.reduce((sum, count) => sum + count, 0);
  const result = new Float64Array(rows * total);
  let at = 0;
  matrices.forEach((matrix, i) => {
    const count = columns[i]!;
    for (let row = 0; row < rows; row++) {
      result.set(matrix.subarray(row * count, (row + 1) * count), row * total + at);
    }
    at += count;
  });
  return result;
}

interface Matrix {
  readonly values: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

/** Matrices from the upper left to the lower right, zeros around them. */
function onDiagonal(blocks: readonly Matrix[]): Float64Array {
  const sum = (size: 'rows' | 'columns') => blocks.reduce((total, block) => total + block[size], 0);
  const width = sum('columns');
  const result = new Float64Array(sum('rows') * width);
  let [row, column] = [0, 0];
  for (const { values, rows, columns } of blocks) {
    for (let r = 0; r < rows; r++) {
      result.set(values.subarray(r * columns, (r + 1) * columns), (row + r) * width + column);
    }
    row += rows;
    column += columns;
  }
  return result;
}
