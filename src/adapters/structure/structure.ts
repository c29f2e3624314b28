/**
 * The three structures of an adapter and their sizes.
 *
 * ΔW [in, out] is seen as a grid of Kin x Kout blocks, and a block (n, j) that the structure has is
 * `s · A[n, j] · B[n, j]` with A[n, j] [in/Kin, r] and B[n, j] [r, out/Kout], r the block rank:
 *
 * | structure   | blocks               | block rank | A                      | B                        |
 * |-------------|----------------------|------------|------------------------|--------------------------|
 * | `global`    | one                  | R          | [in, R]                | [R, out]                 |
 * | `diagonal`  | K on the diagonal    | R          | [K, in/K, R]           | [K, R, out/K]            |
 * | `localized` | Kin x Kout           | R/K        | [Kin, in/Kin, Kout·r]  | [Kout, Kin·r, out/Kout]  |
 *
 * A[n, j] are columns j·r … of A[n], B[n, j] rows n·r … of B[j] (as PEFT's GraLoRA stores
 * them). Source: Localized LoRA, https://arxiv.org/abs/2506.00236; GraLoRA,
 * https://arxiv.org/abs/2505.20355.
 */
import { OnnxLoraError } from '../../errors.js';

/** Divisions of a weight into blocks: a full grid, its diagonal, or one block (LoRA). */
export const structures = ['localized', 'diagonal', 'global'] as const;
/** The division of a weight into blocks. */
export type StructureName = (typeof structures)[number];

/** The rank of adapters where nothing else is asked for. */
export const DEFAULT_RANK = 16;
/** K of adapters where nothing else is asked for. */
export const DEFAULT_BLOCKS = 4;

/** Rules for the scale, by alpha: alpha / R, or alpha / √R (rsLoRA). */
export const scalings = ['standard', 'rslora'] as const;
/** The rule for the scale of an adapter, by alpha and rank. */
export type Scaling = (typeof scalings)[number];

/** Tensors that adapters of some kinds have beside their factors, by their keys in the manifest. */
export type OwnTensorName = 'magnitude';

/** The block rank of a slot, which is known when the model runs. Reshape works a size of -1 out. */
export const OPEN_RANK = -1;

/**
 * Columns of a layer that computes several modules side by side: those of one of them. Such an adapter is
 * as wide as its module, and its layer as wide as all of them.
 */
export interface LayerPart {
  /** The first column. */
  readonly first: number;
  /** The number that the layer has. */
  readonly of: number;
}

/** The shape of one adapter: everything but its numbers. */
export interface Structure {
  /** The blocks that the weight is divided into. */
  readonly structure: StructureName;
  /** Input features of the layer. */
  readonly in: number;
  /** Output features of the layer. */
  readonly out: number;
  /** Kin, Kout. */
  readonly grid: readonly [number, number];
  /** Rank of one block. */
  readonly blockRank: number;
  /** Rank of a global part beside the grid (GraLoRA's `hybrid_r`); 0 for none. */
  readonly hybridRank: number;
  /** Left out where it adapts the whole layer. */
  readonly part?: LayerPart | undefined;
}

/** Structure and size of an adapter. */
export interface StructureOptions {
  /** The blocks that the weight is divided into. */
  readonly structure: StructureName;
  /** R, the rank of the LoRA that has as many parameters. */
  readonly rank: number;
  /** K: the most blocks along a dimension. */
  readonly blocks: number;
  /** Rank of the part that spans the whole weight; default 0, none. */
  readonly hybridRank?: number | undefined;
}

/**
 * The structure for a weight `[in, out]`: a dimension that K does not divide takes its largest
 * divisor below.
 * @throws OnnxLoraError `invalid-argument` where rank or blocks are out of range
 */
export function planStructure(
  inSize: number,
  outSize: number,
  options: StructureOptions,
): Structure {
  const { structure, rank, blocks, hybridRank = 0 } = options;
  checkPositiveInteger('rank', rank);
  checkPositiveInteger('blocks', blocks);
  if (!Number.isInteger(hybridRank) || hybridRank < 0) {
    throw outOfRange('hybrid rank', hybridRank, 'an integer of 0 or more');
  }
  const sizes = { in: inSize, out: outSize, hybridRank };
  switch (structure) {
    case 'global':
      return { ...sizes, structure, grid: [1, 1], blockRank: rank };
    case 'diagonal': {
      const k = largestDivisor(gcd(inSize, outSize), blocks);
      return { ...sizes, structure, grid: [k, k], blockRank: rank };
    }
    case 'localized': {
      if (rank % blocks !== 0) {
        throw new OnnxLoraError(
          'invalid-argument',
          `rank ${rank} is not a multiple of blocks ${blocks}, so its blocks have no whole rank`,
          {
            hint: `Take rank ${Math.ceil(rank / blocks) * blocks}, or blocks that divide ${rank}.`,
          },
        );
      }
      const grid = [largestDivisor(inSize, blocks), largestDivisor(outSize, blocks)] as const;
      return { ...sizes, structure, grid, blockRank: rank / blocks };
    }
  }
}

function checkPositiveInteger(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1 || value > MAX_RANK) {
    throw outOfRange(name, value, `an integer from 1 to ${MAX_RANK}`);
  }
}

// Beyond this an adapter is larger than any weight it could join.
const MAX_RANK = 65536;

function outOfRange(name: string, value: number, expected: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', `${name} is ${value}, expected ${expected}`);
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

function largestDivisor(size: number, limit: number): number {
  for (let k = Math.min(limit, size); k > 1; k--) if (size % k === 0) return k;
  return 1;
}

/** Shape of A as it is stored. A grid of one block is a plain matrix. */
export function shapeOfA(s: Structure): number[] {
  const [kIn, kOut] = s.grid;
  const columns = s.structure === 'diagonal' ? s.blockRank : kOut * s.blockRank;
  return isPlain(s) ? [s.in, columns] : [kIn, s.in / kIn, columns];
}

/** Shape of B as it is stored. */
export function shapeOfB(s: Structure): number[] {
  const [kIn, kOut] = s.grid;
  const rows = s.structure === 'diagonal' ? s.blockRank : kIn * s.blockRank;
  return isPlain(s) ? [rows, s.out] : [kOut, rows, s.out / kOut];
}

/** Whether the grid has one block, so that the adapter is plain LoRA. */
export function isPlain({ grid }: Structure): boolean {
  return grid[0] === 1 && grid[1] === 1;
}

/** The rank of all blocks as one. */
export function stackedRank({ structure, grid, blockRank }: Structure): number {
  return (structure === 'diagonal' ? grid[0] : grid[0] * grid[1]) * blockRank;
}

/** The numbers of one adapter that are trained. */
export function parameterCount(s: Structure): number {
  const count = (shape: number[]) => shape.reduce((a, b) => a * b, 1);
  return count(shapeOfA(s)) + count(shapeOfB(s)) + s.hybridRank * (s.in + s.out);
}

/** The scale s: alpha/R, or alpha/√R. A hybrid's rank counts with it, as in GraLoRA. */
export function scaleOf(alpha: number, rank: number, hybridRank: number, scaling: Scaling): number {
  const total = rank + hybridRank;
  return scaling === 'rslora' ? alpha / Math.sqrt(total) : alpha / total;
}

/** One block: its place in ΔW, and the parts of A and B that it is made from. */
export interface Block {
  readonly n: number;
  readonly j: number;
  /** First row of B[j] and first column of A[n] that belong to the block. */
  readonly rowOfB: number;
  readonly columnOfA: number;
}

/** The blocks that a structure has. */
export function* blocksOf(s: Structure): Generator<Block> {
  const [kIn, kOut] = s.grid;
  for (let n = 0; n < kIn; n++) {
    if (s.structure === 'diagonal') yield { n, j: n, rowOfB: 0, columnOfA: 0 };
    else {
      for (let j = 0; j < kOut; j++) {
        yield { n, j, rowOfB: n * s.blockRank, columnOfA: j * s.blockRank };
      }
    }
  }
}

/** The structure that an adapter's record describes. */
export function structureOf(record: Structure): Structure {
  const { structure, grid, blockRank, hybridRank, part } = record;
  const plan = { structure, grid, blockRank, hybridRank, in: record.in, out: record.out };
  return part ? { ...plan, part } : plan;
}

/** The number of columns that the layer of an adapter has. */
export function layerColumns({ out, part }: Pick<Structure, 'out' | 'part'>): number {
  return part?.of ?? out;
}

/** Whether a part lies in its layer. */
export function fitsLayer({ out, part }: Pick<Structure, 'out' | 'part'>): boolean {
  return !part || part.first + out <= part.of;
}

/** Whether two adapters of one layer change columns that are not the same. */
export function areApart(
  one: Pick<Structure, 'out' | 'part'>,
  other: Pick<Structure, 'out' | 'part'>,
): boolean {
  if (!one.part || !other.part) return false;
  const [a, b] = [one.part.first, other.part.first];
  return a + one.out <= b || b + other.out <= a;
}
