import { Matrix, SingularValueDecomposition } from 'ml-matrix';
import { expect, test } from 'vitest';
import {
  capturedByRank,
  decompose,
  fitOf,
  fitStructure,
  type StructureFit,
} from '../../../src/adapters/factors/fit-structure.js';
import { planStructure, type Structure } from '../../../src/adapters/structure/structure.js';
import { randomNumbers } from '../../support/adapters.js';

/** What a fit stands for, by the definition of the grid: element by element. */
function denseOf(fit: StructureFit, s: Structure): Float64Array {
  const [height, width] = [s.in / s.grid[0], s.out / s.grid[1]];
  const isDiagonal = s.structure === 'diagonal';
  const strideOfA = (isDiagonal ? 1 : s.grid[1]) * s.blockRank;
  const rowsOfB = (isDiagonal ? 1 : s.grid[0]) * s.blockRank;
  return Float64Array.from({ length: s.in * s.out }, (_, at) => {
    const [row, column] = [Math.floor(at / s.out), at % s.out];
    const [n, j] = [Math.floor(row / height), Math.floor(column / width)];
    let sum = 0;
    for (let k = 0; k < s.hybridRank; k++) {
      sum += fit.generalA![row * s.hybridRank + k]! * fit.generalB![k * s.out + column]!;
    }
    if (isDiagonal && n !== j) return sum;
    for (let k = 0; k < s.blockRank; k++) {
      const a = fit.a[row * strideOfA + (isDiagonal ? 0 : j * s.blockRank) + k]!;
      const rowOfB = j * rowsOfB + (isDiagonal ? 0 : n * s.blockRank) + k;
      sum += a * fit.b[rowOfB * width + (column - j * width)]!;
    }
    return sum;
  });
}

function norm(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

function relativeError(fit: StructureFit, s: Structure, delta: Float64Array): number {
  const dense = denseOf(fit, s);
  return norm(delta.map((value, i) => value - dense[i]!)) / norm(delta);
}

const grids: [string, Structure][] = [
  ['global', planStructure(24, 36, { structure: 'global', rank: 4, blocks: 1 })],
  ['diagonal', planStructure(24, 36, { structure: 'diagonal', rank: 3, blocks: 4 })],
  ['localized', planStructure(24, 36, { structure: 'localized', rank: 8, blocks: 4 })],
  ['rectangular', planStructure(24, 35, { structure: 'localized', rank: 12, blocks: 6 })],
];

test.each(grids)('%s: the error is that of the factors, block by block the best', async (_, s) => {
  const delta = randomNumbers(1, s.in * s.out);
  const fit = await fitStructure(delta, s);
  expect(relativeError(fit, s, delta)).toBeCloseTo(fit.error, 12);
  expect(fit.captured / norm(delta) ** 2).toBeCloseTo(1 - fit.error ** 2, 12);
  expect(fit.captured).toBeCloseTo(bestCaptured(delta, s), 10);
});

/** The leading singular values of every block, by ml-matrix. */
function bestCaptured(delta: Float64Array, s: Structure): number {
  const dense = Matrix.from1DArray(s.in, s.out, delta);
  const [height, width] = [s.in / s.grid[0], s.out / s.grid[1]];
  let sum = 0;
  for (let n = 0; n < s.grid[0]; n++) {
    for (let j = 0; j < s.grid[1]; j++) {
      if (s.structure === 'diagonal' && n !== j) continue;
      const [top, left] = [n * height, j * width];
      const block = dense.subMatrix(top, top + height - 1, left, left + width - 1);
      const { diagonal } = new SingularValueDecomposition(block, { autoTranspose: true });
      for (const value of diagonal.slice(0, s.blockRank)) sum += value ** 2;
    }
  }
  return sum;
}

test.each(grids)('%s: what has the structure is found again', async (_, s) => {
  const fit = {
    a: randomNumbers(2, s.in * s.grid[1] * s.blockRank),
    b: randomNumbers(3, s.out * s.grid[0] * s.blockRank),
    ...{ error: 0, captured: 0 },
  };
  const delta = denseOf(fit, s);
  const found = await fitStructure(delta, s);
  expect(relativeError(found, s, delta)).toBeLessThan(1e-12);
});

test('one decomposition answers every rank', async () => {
  const s = planStructure(24, 36, { structure: 'localized', rank: 12, blocks: 2 });
  const delta = randomNumbers(4, 24 * 36);
  const blocks = await decompose(delta, s, 6);
  const captured = capturedByRank(blocks, 6);
  for (const blockRank of [1, 3, 6]) {
    const fit = await fitStructure(delta, { ...s, blockRank });
    expect(captured[blockRank]).toBeCloseTo(fit.captured, 10);
    expect(fitOf(blocks, { ...s, blockRank }).a).toEqual(fit.a);
  }
});

test('ranks beyond those of a block stay zero', async () => {
  const s = planStructure(6, 8, { structure: 'localized', rank: 10, blocks: 2 });
  const delta = randomNumbers(5, 48);
  const fit = await fitStructure(delta, s);
  expect(relativeError(fit, s, delta)).toBeLessThan(1e-12);
});

test('a hybrid is no worse than its grid or its global part alone', async () => {
  const grid = planStructure(24, 36, { structure: 'diagonal', rank: 2, blocks: 4 });
  const hybrid = { ...grid, hybridRank: 3 };
  const delta = randomNumbers(6, 24 * 36);
  const fit = await fitStructure(delta, hybrid);
  expect(relativeError(fit, hybrid, delta)).toBeCloseTo(fit.error, 12);
  const global = planStructure(24, 36, { structure: 'global', rank: 3, blocks: 1 });
  for (const part of [grid, global]) {
    expect(fit.error).toBeLessThan((await fitStructure(delta, part)).error);
  }
});

test('nothing to fit is fitted by zeros', async () => {
  const s = planStructure(8, 8, { structure: 'localized', rank: 4, blocks: 2 });
  const fit = await fitStructure(new Float32Array(64), s);
  expect(fit).toMatchObject({ error: 0, captured: 0, a: new Float64Array(32) });
});
