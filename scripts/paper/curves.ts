/** The error of each structure's best fit over its parameters, from exact singular values. */
import { type Matrix, SingularValueDecomposition } from 'ml-matrix';
import {
  blocksOf,
  parameterCount,
  planStructure,
  type StructureName,
} from '../../src/adapters/structure/structure.js';

/** A structure on a grid of at most `blocks` per dimension, at any rank. */
export interface Family {
  readonly structure: StructureName;
  readonly blocks: number;
}

export const families: readonly Family[] = [
  { structure: 'global', blocks: 1 },
  { structure: 'diagonal', blocks: 4 },
  { structure: 'localized', blocks: 2 },
  { structure: 'localized', blocks: 4 },
  { structure: 'localized', blocks: 8 },
];

export function labelOf({ structure, blocks }: Family): string {
  return structure === 'global' ? structure : `${structure} K=${blocks}`;
}

export interface CurvePoint {
  /** R, the rank of the LoRA with as many parameters. */
  readonly rank: number;
  /** Of the matrix's own numbers. */
  readonly share: number;
  /** |ΔW - fit| / |ΔW| */
  readonly error: number;
}

/** The relative error of the best fit at each rank that the family has, up to `share` of the matrix. */
export function errorCurve(target: Matrix, family: Family, share: number): CurvePoint[] {
  const [rows, columns] = [target.rows, target.columns];
  const step = family.structure === 'localized' ? family.blocks : 1;
  const last = Math.floor((share * rows * columns) / (rows + columns));
  const total = target.norm('frobenius') ** 2;
  const spectra = blockSpectra(target, family);
  const points: CurvePoint[] = [];
  for (let rank = step; rank <= last; rank += step) {
    const structure = planStructure(rows, columns, { ...family, rank });
    const lost = spectra.reduce(
      (sum, values) => sum + energyBehind(values, structure.blockRank),
      0,
    );
    const outside = total - spectra.reduce((sum, values) => sum + energyBehind(values, 0), 0);
    points.push({
      rank,
      share: parameterCount(structure) / (rows * columns),
      error: Math.sqrt(Math.max(0, lost + outside) / total),
    });
  }
  return points;
}

/** Singular values of every block that the family has. */
function blockSpectra(target: Matrix, family: Family): number[][] {
  const [rows, columns] = [target.rows, target.columns];
  const structure = planStructure(rows, columns, { ...family, rank: family.blocks });
  const [height, width] = [rows / structure.grid[0], columns / structure.grid[1]];
  return [...blocksOf(structure)].map(({ n, j }) => {
    const block = target.subMatrix(
      n * height,
      (n + 1) * height - 1,
      j * width,
      (j + 1) * width - 1,
    );
    return singularValues(block);
  });
}

function singularValues(matrix: Matrix): number[] {
  return new SingularValueDecomposition(matrix, {
    computeLeftSingularVectors: false,
    computeRightSingularVectors: false,
    autoTranspose: true,
  }).diagonal;
}

function energyBehind(values: readonly number[], rank: number): number {
  return values.slice(rank).reduce((sum, value) => sum + value * value, 0);
}
