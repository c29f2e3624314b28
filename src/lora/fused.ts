/**
 * Projections that an ONNX model computes in one layer and PyTorch in several: their outputs lie side
 * by side, so the adapters do too.
 */
import type { StoredAdapter } from './adapter-file.js';
import { factorsOf, type NewAdapter, structureOf } from './insert.js';
import type { Layer } from './layers.js';
import { plainFactors, plainRank } from './plain.js';
import { isPlain } from './structure.js';

const QUERY = ['q_proj', 'query', 'q', 'wq', 'to_q', 'q_lin'];
const KEY = ['k_proj', 'key', 'k', 'wk', 'to_k', 'k_lin'];
const VALUE = ['v_proj', 'value', 'v', 'wv', 'to_v', 'v_lin'];
const GATE = ['gate_proj', 'w1'];
const UP = ['up_proj', 'w3'];

/** A fused layer: what it is called, and what lies in its output, from the first column on. */
interface Fusion {
  readonly names: readonly string[];
  readonly parts: readonly (readonly string[])[];
}

const fusions: readonly Fusion[] = [
  {
    names: ['qkv_proj', 'qkv', 'Wqkv', 'c_attn', 'in_proj', 'to_qkv', 'query_key_value'],
    parts: [QUERY, KEY, VALUE],
  },
  { names: ['kv_proj', 'kv', 'Wkv', 'to_kv', 'key_value'], parts: [KEY, VALUE] },
  { names: ['gate_up_proj', 'gate_up', 'w13'], parts: [GATE, UP] },
];

/** A name under which many models keep the parts head by head. */
const OFTEN_BY_HEAD = 'query_key_value';

/** A place for a module in a fused layer. */
export interface FusedHome {
  /** Module path of the fused layer. */
  readonly path: string;
  /** Which part of its output is the module's, and how many there are. */
  readonly part: number;
  readonly parts: number;
}

/** Fused layers that could hold a module, by the names that they would have. */
export function fusedHomes(module: string): FusedHome[] {
  const dot = module.lastIndexOf('.') + 1;
  const [parent, name] = [module.slice(0, dot), module.slice(dot)];
  return fusions.flatMap(({ names, parts }) => {
    const part = parts.findIndex((spellings) => spellings.includes(name));
    if (part < 0) return [];
    return names.map((fused) => ({ path: parent + fused, part, parts: parts.length }));
  });
}

/** Whether only the graph can say that a layer's parts are not interleaved. */
export function needsProof({ path }: FusedHome): boolean {
  return path.endsWith(OFTEN_BY_HEAD);
}

/** An adapter of one part of a fused layer. */
export interface Member {
  readonly part: number;
  readonly adapter: StoredAdapter;
}

/**
 * The adapter of a fused layer from those of its parts; a part without one stays as it is. Parts of one
 * width with adapters of one kind are a grid of as many columns of blocks; others are stacked into one
 * block that is zero where a part has nothing to do.
 * @returns the problem where they do not fit the layer or each other
 */
export function fuseAdapters(
  layer: Layer,
  parts: number,
  members: readonly Member[],
): NewAdapter | string {
  const { weight } = layer.linear[0]!;
  const wrong = members.find(({ adapter }) => adapter.record.in !== weight.in);
  if (wrong)
    return `${wrong.adapter.record.name} has ${wrong.adapter.record.in} inputs, ${layer.module} has ${weight.in}`;
  const widths = partWidths(weight.out, parts, members);
  if (typeof widths === 'string') return `${layer.module} has ${weight.out} outputs, and ${widths}`;
  const magnitude = fusedMagnitude(parts, members);
  if (typeof magnitude === 'string') return magnitude;
  const name = { name: layer.module, weight: weight.name, in: weight.in, out: weight.out };
  const fused = isGrid(widths, members)
    ? asGrid(name, parts, members)
    : asStack(name, widths, members);
  return { layer, ...fused, ...(magnitude ? { magnitude } : {}) };
}

/** Keys are as wide as values, a gate as what it gates; queries take the rest. */
function partWidths(out: number, parts: number, members: readonly Member[]): number[] | string {
  const known = (part: number) => members.find((one) => one.part === part)?.adapter.record.out;
  const given = members.map(({ adapter }) => `${adapter.record.name} ${adapter.record.out}`);
  const last = known(parts - 1) ?? known(parts - 2);
  let widths: number[];
  if (parts === 2) widths = [out / 2, out / 2];
  else {
    const each = last ?? (out - known(0)!) / 2;
    widths = [out - 2 * each, each, each];
  }
  const fits =
    widths.every((width) => Number.isInteger(width) && width > 0) &&
    members.every(({ part, adapter }) => widths[part] === adapter.record.out);
  return fits ? widths : `these are no parts of it: ${given.join(', ')}`;
}

function fusedMagnitude(parts: number, members: readonly Member[]) {
  const given = members.filter(({ adapter }) => adapter.magnitude);
  if (given.length === 0) return undefined;
  if (given.length < parts) {
    return `${given[0]!.adapter.record.name} has a magnitude vector (DoRA), and other parts of the same layer have none`;
  }
  const ordered = [...given].sort((a, b) => a.part - b.part);
  return () => concatenated(ordered.map(({ adapter }) => adapter.magnitude!()));
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
type Name = Pick<NewAdapter['record'], 'name' | 'weight' | 'in' | 'out'>;

function isGrid(widths: readonly number[], members: readonly Member[]): boolean {
  const first = members[0]!.adapter.record;
  return (
    widths.every((width) => width === widths[0]) &&
    members.every(
      ({ adapter: { record } }) =>
        record.structure !== 'diagonal' &&
        record.grid.join() === first.grid.join() &&
        record.blockRank === first.blockRank &&
        record.hybridRank === first.hybridRank &&
        record.scale === first.scale,
    )
  );
}

/** Kin x (parts · Kout) blocks. B's columns of blocks come one after the other, A's side by side. */
function asGrid(name: Name, parts: number, members: readonly Member[]): Fused {
  const { grid, blockRank, hybridRank, scale, scaling } = members[0]!.adapter.record;
  const [kIn, kOut] = grid;
  const width = name.out / parts;
  const rank = parts * kOut * blockRank;
  const fused = [kIn, parts * kOut] as const;
  const record = {
    ...name,
    ...{ structure: 'localized' as const, grid: fused, rank, blockRank },
    ...{ hybridRank: parts * hybridRank, alpha: scale * (rank + parts * hybridRank) },
    ...{ scaling, scale },
  };
  const numbers = (factor: 'a' | 'b' | 'generalA' | 'generalB', size: number) =>
    Array.from({ length: parts }, (_, part) => {
      const member = members.find((one) => one.part === part);
      return member?.adapter.values(factor) ?? new Float64Array(size);
    });
  return {
    record: isPlain(structureOf(record)) ? { ...record, structure: 'global' } : record,
    values: (factor) => {
      switch (factor) {
        case 'a':
          return sideBySide(numbers('a', name.in * kOut * blockRank), name.in);
        case 'b':
          return concatenated(numbers('b', kIn * blockRank * width));
        case 'generalA':
          return sideBySide(numbers('generalA', name.in * hybridRank), name.in);
        case 'generalB':
          return onDiagonal(
            numbers('generalB', hybridRank * width).map((values) => ({ values, rows: hybridRank })),
            Array(parts).fill(width),
          );
      }
    },
  };
}

/** One block; where scales differ they are multiplied into B. */
function asStack(name: Name, widths: readonly number[], members: readonly Member[]): Fused {
  const records = members.map(({ adapter }) => adapter.record);
  const rank = records.reduce((sum, record) => sum + plainRank(structureOf(record)), 0);
  const { scale: first } = records[0]!;
  const scale = records.every((record) => record.scale === first) ? first : 1;
  const plain = ({ adapter }: Member) =>
    plainFactors(structureOf(adapter.record), factorsOf(adapter));
  return {
    record: {
      ...name,
      ...{ structure: 'global', grid: [1, 1], rank, blockRank: rank, hybridRank: 0 },
      ...{ alpha: scale * rank, scaling: 'standard', scale },
    },
    values: (factor) => {
      if (factor === 'a')
        return sideBySide(
          members.map((one) => plain(one).a),
          name.in,
        );
      const blocks = widths.map((_, part) => {
        const member = members.find((one) => one.part === part);
        if (!member) return { values: new Float64Array(0), rows: 0 };
        const { b, rank: rows } = plain(member);
        const share = member.adapter.record.scale / scale;
        return { values: b.map((value) => share * value), rows };
      });
      return onDiagonal(blocks, widths);
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

/** Matrices from the upper left to the lower right, zeros around them. */
function onDiagonal(
  blocks: readonly { readonly values: Float64Array; readonly rows: number }[],
  widths: readonly number[],
): Float64Array {
  const total = widths.reduce((sum, width) => sum + width, 0);
  const result = new Float64Array(blocks.reduce((sum, { rows }) => sum + rows, 0) * total);
  let [row, column] = [0, 0];
  blocks.forEach(({ values, rows }, i) => {
    const width = widths[i]!;
    for (let r = 0; r < rows; r++) {
      result.set(values.subarray(r * width, (r + 1) * width), (row + r) * total + column);
    }
    row += rows;
    column += width;
  });
  return result;
}
