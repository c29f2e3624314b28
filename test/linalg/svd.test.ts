import { Matrix, SingularValueDecomposition } from 'ml-matrix';
import { expect, test } from 'vitest';
import { truncatedSvd } from '../../src/linalg/svd.js';
import type { TruncatedSvd } from '../../src/linalg/truncated-svd.js';
import { generatorFor, normal } from '../../src/random.js';

/** The reference: every singular value, by ml-matrix. */
function singularValues(data: Float64Array, rows: number, columns: number): number[] {
  const dense = Matrix.from1DArray(rows, columns, data);
  return new SingularValueDecomposition(dense, { autoTranspose: true }).diagonal;
}

function gaussian(length: number, name = 'matrix'): Float64Array {
  const random = generatorFor(1, name, 'values');
  return Float64Array.from({ length }, () => normal(random));
}

/** Left factor of Gaussian columns times a right one, scaled to singular values near `values`. */
function withSpectrum(rows: number, columns: number, value: (i: number) => number): Float64Array {
  const rank = Math.min(rows, columns);
  const left = gaussian(rows * rank, 'left');
  const right = gaussian(rank * columns, 'right');
  const scaled = Matrix.from1DArray(rows, rank, left);
  for (let i = 0; i < rank; i++) scaled.mulColumn(i, value(i));
  return Float64Array.from(scaled.mmul(Matrix.from1DArray(rank, columns, right)).to1DArray());
}

function distance(svd: TruncatedSvd, data: Float64Array): number {
  const { rows, columns, rank, u, s, v } = svd;
  const left = Matrix.from1DArray(rows, rank, u).mulRowVector(s as unknown as number[]);
  const right = Matrix.from1DArray(columns, rank, v).transpose();
  return Matrix.from1DArray(rows, columns, data).sub(left.mmul(right)).norm('frobenius');
}

const tail = (values: readonly number[], rank: number) =>
  Math.sqrt(values.slice(rank).reduce((sum, value) => sum + value ** 2, 0));

test.each([
  ['a small matrix', 24, 17],
  ['a tall one', 300, 120],
  ['a wide one', 120, 300],
])(
  'the residual of %s is what the factors leave, and within a percent of the best',
  async (_, rows, columns) => {
    const data = withSpectrum(rows, columns, (i) => 1 / (1 + i));
    const exact = singularValues(data, rows, columns);
    const svd = await truncatedSvd(data, rows, columns, 6);
    const left = distance(svd, data);
    expect(Math.sqrt(svd.residual)).toBeCloseTo(left, 8);
    expect(left).toBeGreaterThanOrEqual(tail(exact, 6) * (1 - 1e-12));
    expect(left).toBeLessThan(tail(exact, 6) * 1.0001);
    for (const [i, value] of svd.s.entries()) expect(value / exact[i]!).toBeCloseTo(1, 4);
  },
);

test('where all singular values are alike, the residual is still close to the best', async () => {
  const size = 400;
  const data = gaussian(size * size);
  const svd = await truncatedSvd(data, size, size, 8);
  const best = tail(singularValues(data, size, size), 8);
  expect(Math.sqrt(svd.residual)).toBeGreaterThanOrEqual(best);
  expect(Math.sqrt(svd.residual)).toBeLessThan(best * 1.002);
});

test('a matrix of low rank has no more singular values than its rank, and nothing is left', async () => {
  const size = 200;
  const data = withSpectrum(size, size, (i) => (i < 5 ? 1 : 0));
  const svd = await truncatedSvd(data, size, size, 16);
  expect(svd.rank).toBe(5);
  expect(distance(svd, data) / Math.sqrt(svd.squares)).toBeLessThan(1e-12);
});

test('the vectors are orthonormal', async () => {
  const [rows, columns, rank] = [250, 180, 10];
  const { u, v } = await truncatedSvd(gaussian(rows * columns), rows, columns, rank);
  for (const [vectors, height] of [
    [u, rows],
    [v, columns],
  ] as const) {
    const matrix = Matrix.from1DArray(height, rank, vectors);
    const gram = matrix.transpose().mmul(matrix);
    expect(gram.sub(Matrix.eye(rank)).norm('frobenius')).toBeLessThan(1e-10);
  }
});

test('zero has rank 0', async () => {
  for (const size of [8, 128]) {
    const svd = await truncatedSvd(new Float32Array(size * size), size, size, 4);
    expect({ rank: svd.rank, residual: svd.residual }).toEqual({ rank: 0, residual: 0 });
  }
});

test('the same seed gives the same numbers, float32 as float64', async () => {
  const data = gaussian(160 * 160);
  const narrow = Float32Array.from(data);
  const once = await truncatedSvd(narrow, 160, 160, 4, { seed: 3 });
  expect(await truncatedSvd(narrow, 160, 160, 4, { seed: 3 })).toEqual(once);
  expect(await truncatedSvd(Float64Array.from(narrow), 160, 160, 4, { seed: 3 })).toEqual(once);
});
