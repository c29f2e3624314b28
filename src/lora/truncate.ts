/** The best approximation of ΔW by a lower rank, from its factors alone. */
import { type PlainFactors, product, transposed } from './plain.js';

export interface Truncated {
  readonly factors: PlainFactors;
  /** |ΔW - approximation| / |ΔW| by the Frobenius norm; 0 where ΔW is 0. */
  readonly error: number;
}

/**
 * Cuts `a · b` off at the rank `limit`, by its singular values (Eckart and Young). No matrix as large as
 * ΔW is made: with orthonormal rows Qa and Qb, aᵀ = La·Qa and b = Lb·Qb, so that the small Laᵀ·Lb in
 * `a · b = Qaᵀ · (Laᵀ · Lb) · Qb` has its singular values. Both factors get their square roots.
 */
export function truncated(
  { a, b, rank }: PlainFactors,
  rows: number,
  columns: number,
  limit: number,
): Truncated {
  const left = orthogonal(transposed(a, rows, rank), rank, rows);
  const right = orthogonal(b, rank, columns);
  const core = product(transposed(left.l, rank, rank), right.l, rank, rank, rank);
  const { u, values, v } = svd(core, rank);
  const order = [...values.keys()].sort((x, y) => values[y]! - values[x]!);
  const [kept, lost] = [order.slice(0, limit), order.slice(limit)];
  const scaled = (vectors: Float64Array) =>
    Float64Array.from({ length: kept.length * rank }, (_, i) => {
      const from = kept[Math.floor(i / rank)]!;
      return vectors[from * rank + (i % rank)]! * Math.sqrt(values[from]!);
    });
  const newA = product(scaled(u), left.q, kept.length, rank, rows);
  const newB = product(scaled(v), right.q, kept.length, rank, columns);
  const squares = (list: number[]) => list.reduce((sum, i) => sum + values[i]! ** 2, 0);
  const all = squares(order);
  return {
    factors: { rank: kept.length, a: transposed(newA, kept.length, rows), b: newB },
    error: all === 0 ? 0 : Math.sqrt(squares(lost) / all),
  };
}

/**
 * Orthonormal rows q and a lower triangle l with `vectors = l · q`, by Gram and Schmidt, twice for the
 * digits that the first pass loses. A vector that depends on those before it has a row of zeros.
 */
function orthogonal(vectors: Float64Array, count: number, length: number) {
  const q = vectors.slice();
  const l = new Float64Array(count * count);
  for (let i = 0; i < count; i++) {
    const row = q.subarray(i * length, (i + 1) * length);
    const size = Math.sqrt(dot(row, row));
    for (let pass = 0; pass < 2; pass++) {
      for (let k = 0; k < i; k++) {
        const other = q.subarray(k * length, (k + 1) * length);
        const share = dot(row, other);
        l[i * count + k]! += share;
        for (let x = 0; x < length; x++) row[x]! -= share * other[x]!;
      }
    }
    const rest = Math.sqrt(dot(row, row));
    if (rest <= size * 1e-14) row.fill(0);
    else {
      l[i * count + i] = rest;
      for (let x = 0; x < length; x++) row[x]! /= rest;
    }
  }
  return { q, l };
}

const MAX_SWEEPS = 60;
const CONVERGED = 1e-15;

/**
 * Singular values of a square matrix, with the singular vectors as rows of u and v, by one-sided Jacobi
 * rotations (Hestenes): pairs of columns are turned until all are orthogonal.
 */
function svd(matrix: Float64Array, size: number) {
  const u = transposed(matrix, size, size);
  const v = new Float64Array(size * size);
  for (let i = 0; i < size; i++) v[i * size + i] = 1;
  const row = (of: Float64Array, i: number) => of.subarray(i * size, (i + 1) * size);
  for (let sweep = 0, turned = true; turned && sweep < MAX_SWEEPS; sweep++) {
    turned = false;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        const [up, uq] = [row(u, p), row(u, q)];
        const [pp, qq, pq] = [dot(up, up), dot(uq, uq), dot(up, uq)];
        if (Math.abs(pq) <= CONVERGED * Math.sqrt(pp * qq)) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * pq);
        const t = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
        const c = 1 / Math.hypot(1, t);
        rotate(up, uq, c, c * t);
        rotate(row(v, p), row(v, q), c, c * t);
      }
    }
  }
  const values = Float64Array.from({ length: size }, (_, i) =>
    Math.sqrt(dot(row(u, i), row(u, i))),
  );
  for (const [i, value] of values.entries()) {
    if (value === 0) continue;
    const left = row(u, i);
    for (let k = 0; k < size; k++) left[k]! /= value;
  }
  return { u, values, v };
}

function rotate(x: Float64Array, y: Float64Array, c: number, s: number): void {
  for (let i = 0; i < x.length; i++) {
    const [a, b] = [x[i]!, y[i]!];
    x[i] = c * a - s * b;
    y[i] = s * a + c * b;
  }
}

function dot(x: Float64Array, y: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}
