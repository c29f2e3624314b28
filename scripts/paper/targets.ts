/** Weight updates of known make: what a structure can say well, and what it cannot. */
import { Matrix, QrDecomposition } from 'ml-matrix';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import { generatorFor, normal } from '../../src/random.js';

/** All targets are square, of this size. */
export const SIZE = 256;
/** The grid that block targets are made on, and the rank of their blocks. */
const GRID = 4;
const RANK = 16;

export interface Target {
  readonly name: string;
  /** How it is made, in a few words. */
  readonly recipe: string;
  readonly make: (random: RandomGenerator) => Matrix;
}

export const targets: readonly Target[] = [
  { name: 'Gaussian', recipe: 'independent numbers: no structure at all', make: gaussian },
  { name: 'exact low rank', recipe: `P·Q of rank ${RANK}`, make: (r) => lowRank(r, SIZE, RANK) },
  {
    name: 'blockwise low rank',
    recipe: `${GRID} x ${GRID} blocks, each of rank ${RANK / GRID}`,
    make: (r) => grid(() => lowRank(r, SIZE / GRID, RANK / GRID)),
  },
  {
    name: 'block-diagonal',
    recipe: `${GRID} blocks of rank ${RANK} on the diagonal, zeros elsewhere`,
    make: blockDiagonal,
  },
  {
    name: 'spectrum 1/i',
    recipe: 'singular values 1/i between random orthogonal bases',
    make: (r) => withSpectrum(r, (i) => 1 / i),
  },
  {
    name: 'spectrum exp(-i/16)',
    recipe: 'singular values exp(-i/16) between random orthogonal bases',
    make: (r) => withSpectrum(r, (i) => Math.exp(-i / 16)),
  },
  {
    name: 'outlier columns',
    recipe: 'Gaussian, 8 columns 10 times as large',
    make: outlierColumns,
  },
  {
    name: 'permuted blocks',
    recipe: 'block-diagonal with rows and columns in random order',
    make: (r) => permuted(r, blockDiagonal(r)),
  },
  {
    name: 'rotated blocks',
    recipe: 'block-diagonal between random orthogonal bases',
    make: (r) => orthogonal(r).mmul(blockDiagonal(r)).mmul(orthogonal(r)),
  },
];

/** The numbers of a target, the same for the same seed. */
export function makeTarget({ name, make }: Target, seed: number): Matrix {
  return make(generatorFor(seed, 'target', name));
}

function matrix(rows: number, columns: number, value: (i: number, j: number) => number): Matrix {
  const made = new Matrix(rows, columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) made.set(i, j, value(i, j));
  }
  return made;
}

function gaussian(random: RandomGenerator): Matrix {
  return matrix(SIZE, SIZE, () => normal(random));
}

function lowRank(random: RandomGenerator, size: number, rank: number): Matrix {
  const p = matrix(size, rank, () => normal(random));
  return p.mmul(matrix(rank, size, () => normal(random)));
}

function grid(block: (n: number, j: number) => Matrix | undefined): Matrix {
  const size = SIZE / GRID;
  const made = Matrix.zeros(SIZE, SIZE);
  for (let n = 0; n < GRID; n++) {
    for (let j = 0; j < GRID; j++) {
      const part = block(n, j);
      if (part) made.setSubMatrix(part, n * size, j * size);
    }
  }
  return made;
}

function blockDiagonal(random: RandomGenerator): Matrix {
  return grid((n, j) => (n === j ? lowRank(random, SIZE / GRID, RANK) : undefined));
}

function orthogonal(random: RandomGenerator): Matrix {
  return new QrDecomposition(gaussian(random)).orthogonalMatrix;
}

function withSpectrum(random: RandomGenerator, value: (i: number) => number): Matrix {
  const left = orthogonal(random);
  const right = orthogonal(random);
  const scaled = matrix(SIZE, SIZE, (i, j) => left.get(i, j) * value(j + 1));
  return scaled.mmul(right);
}

function outlierColumns(random: RandomGenerator): Matrix {
  const large = new Set(shuffled(random).slice(0, 8));
  return matrix(SIZE, SIZE, (_, j) => normal(random) * (large.has(j) ? 10 : 1));
}

function permuted(random: RandomGenerator, target: Matrix): Matrix {
  const [rows, columns] = [shuffled(random), shuffled(random)];
  return matrix(SIZE, SIZE, (i, j) => target.get(rows[i]!, columns[j]!));
}

/** 0 to SIZE - 1 in random order, by Fisher and Yates. */
function shuffled(random: RandomGenerator): number[] {
  const order = Array.from({ length: SIZE }, (_, i) => i);
  for (let last = SIZE - 1; last > 0; last--) {
    const other = uniformInt(random, 0, last);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}
