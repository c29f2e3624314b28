/** The best approximation of ΔW by a lower rank, from its factors alone. */
import { truncatedSvd } from '../../linalg/svd.js';
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
export async function truncated(
  { a, b, rank }: PlainFactors,
  rows: number,
  columns: number,
  limit: number,
): Promise<Truncated> {
  const left = orthogonal(transposed(a, rows, rank), rank, rows);
  const right = orthogonal(b, rank, columns);
  const core = product(transposed(left.l, rank, rank), right.l, rank, rank, rank);
  const { u, s, v, rank: found, squares, residual } = await truncatedSvd(core, rank, rank, limit);
  // ΔW may have a lower rank than the limit: the rest stays zero.
  const rooted = (vectors: Float64Array) => {
    const result = new Float64Array(limit * rank);
    for (let k = 0; k < found; k++) {
      for (let i = 0; i < rank; i++)
        result[k * rank + i] = vectors[i * found + k]! * Math.sqrt(s[k]!);
    }
    return result;
  };
  const newA = product(rooted(u), left.q, limit, rank, rows);
  const newB = product(rooted(v), right.q, limit, rank, columns);
  return {
    factors: { rank: limit, a: transposed(newA, limit, rows), b: newB },
    error: squares === 0 ? 0 : Math.sqrt(residual / squares),
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

function dot(x: Float64Array, y: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}
