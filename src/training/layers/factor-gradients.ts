/**
 * Gradients of an adapter's factors from the layer's input and output gradient. With X [N, in] and
 * dY [N, out] cut into blocks of columns:
 *
 *     H[n] = X[n] · A[n]          G[j] = s · dY[j] · B[j]ᵀ
 *     dA[n] = X[n]ᵀ · G'[n]       dB[j] = s · H'[j]ᵀ · dY[j]
 *
 * where ' changes the groups of columns that belong to input blocks for those of output blocks. These
 * are thin products: dW [in, out], which is as much work as the layer itself, is never computed.
 */

import { isPlain, type Structure } from '../../adapters/structure/structure.js';
import type { OpBuilder } from '../../autodiff/op-builder.js';

/** Forms of a product. */
export interface AllowedOperators {
  /**
   * Whether com.microsoft operators may be used, which read blocks of columns in place. Providers
   * other than the CPU have no kernel for them.
   */
  readonly fused: boolean;
}

export interface FactorGradients {
  a(): string;
  b(): string;
}

/** Of `x · ΔW` with the factors `a` and `b`; `x` and `dy` have any number of leading axes. */
export function factorGradients(
  c: OpBuilder,
  s: Structure,
  scale: number,
  values: { x: string; dy: string; a: string; b: string },
  allowed: AllowedOperators,
): FactorGradients {
  return isPlain(s) ? ofMatrices(c, s, scale, values) : ofBlocks(c, s, scale, values, allowed);
}

function ofMatrices(
  c: OpBuilder,
  s: Structure,
  scale: number,
  { x, dy, a, b }: { x: string; dy: string; a: string; b: string },
): FactorGradients {
  const rows = c.shape(x)!.length === 2 ? c.shape(x)![0]! : null;
  const rank = c.shape(a)![1]!;
  const flat = (value: string, size: number) =>
    c.rank(value) === 2 ? value : c.reshape(value, c.integers([-1, size]), [null, size]);
  const gemm = (p: string, q: string, shape: (number | string | null)[], flags: object) =>
    c.op('Gemm', [p, q], { dtype: 'float32', shape }, { ...flags });
  const [xs, ys] = [flat(x, s.in), flat(dy, s.out)];
  const transA = { transA: { int: 1 } };
  const alpha = { alpha: { float: scale } };
  return {
    a: () => {
      const g = gemm(ys, b, [rows, rank], { transB: { int: 1 }, ...alpha });
      return gemm(xs, g, [s.in, rank], transA);
    },
    b: () => gemm(gemm(xs, a, [rows, rank], {}), ys, [rank, s.out], { ...transA, ...alpha }),
  };
}

function ofBlocks(
  c: OpBuilder,
  s: Structure,
  scale: number,
  { x, dy, a, b }: { x: string; dy: string; a: string; b: string },
  { fused }: AllowedOperators,
): FactorGradients {
  const [kIn, kOut] = s.grid;
  const products: Products = fused ? new FusedProducts(c) : new PlainProducts(c);
  const xs = products.blocks(x, kIn, s.in / kIn);
  const ys = products.blocks(dy, kOut, s.out / kOut);
  return {
    a: () => {
      const g = products.times(ys, b, true, scale);
      return products.transposedTimes(xs, regrouped(c, s, g, kOut, kIn));
    },
    b: () => {
      const h = products.times(xs, a, false, 1);
      return products.timesBlocks(regrouped(c, s, h, kIn, kOut), ys, scale);
    },
  };
}

/** [K1, N, K2·r] to [K2, N, K1·r] */
function regrouped(c: OpBuilder, s: Structure, value: string, k1: number, k2: number): string {
  if (s.structure === 'diagonal') return value;
  const r = s.blockRank;
  const split = c.reshape(value, c.integers([k1, -1, k2, r]), [k1, null, k2, r]);
  const swapped = c.transpose(split, [2, 1, 0, 3]);
  return c.reshape(swapped, c.integers([k2, -1, k1 * r]), [k2, null, k1 * r]);
}

/** Blocks of the columns of a matrix, as a value of either form below. */
type Blocks = string;

interface Products {
  /** Cuts the columns of `value` into `count` blocks. */
  blocks(value: string, count: number, width: number): Blocks;
  /** [K, N, ..]: `factor · blocks[k] · weight[k]`, the weight transposed or not. */
  times(blocks: Blocks, weight: string, transposed: boolean, factor: number): string;
  /** [K, width, ..]: `blocks[k]ᵀ · right[k]` */
  transposedTimes(blocks: Blocks, right: string): string;
  /** [K, .., width]: `factor · left[k]ᵀ · blocks[k]` */
  timesBlocks(left: string, blocks: Blocks, factor: number): string;
}

/** Blocks as [N, K, width], which is how the matrix lies in memory: nothing is moved. */
class FusedProducts implements Products {
  constructor(private readonly c: OpBuilder) {}

  blocks(value: string, count: number, width: number): string {
    return this.c.reshape(value, this.c.integers([-1, count, width]), [null, count, width]);
  }

  times(blocks: string, weight: string, transposed: boolean, factor: number): string {
    const [k, rows, columns] = this.c.shape(weight)!;
    const flags = { transBatchA: 1, transB: transposed ? 1 : 0 };
    return this.product(blocks, weight, [k!, null, transposed ? rows! : columns!], flags, factor);
  }

  transposedTimes(blocks: string, right: string): string {
    const [, k, width] = this.c.shape(blocks)!;
    const shape = [k!, width!, this.c.shape(right)!.at(-1)!];
    return this.product(blocks, right, shape, { transBatchA: 1, transA: 1 }, 1);
  }

  timesBlocks(left: string, blocks: string, factor: number): string {
    const [, k, width] = this.c.shape(blocks)!;
    const shape = [k!, this.c.shape(left)!.at(-1)!, width!];
    return this.product(left, blocks, shape, { transA: 1, transBatchB: 1 }, factor);
  }

  private product(
    a: string,
    b: string,
    shape: (number | string | null)[],
    flags: Readonly<Record<string, number>>,
    factor: number,
  ): string {
    const given = Object.entries(flags).filter(([, value]) => value !== 0);
    const attributes = {
      ...Object.fromEntries(given.map(([name, int]) => [name, { int }])),
      ...(factor === 1 ? {} : { alpha: { float: factor } }),
    };
    const node = { opType: 'FusedMatMul', domain: 'com.microsoft', attributes };
    return this.c.again(node, [a, b], { dtype: 'float32', shape });
  }
}

/** Blocks as [K, N, width], in standard operators only. */
class PlainProducts implements Products {
  constructor(private readonly c: OpBuilder) {}

  blocks(value: string, count: number, width: number): string {
    const { c } = this;
    const split = c.reshape(value, c.integers([-1, count, width]), [null, count, width]);
    return c.transpose(split, [1, 0, 2]);
  }

  times(blocks: string, weight: string, transposed: boolean, factor: number): string {
    const { c } = this;
    const product = c.matMul(blocks, transposed ? c.swapLast(weight) : weight);
    return c.scale(product, factor);
  }

  transposedTimes(blocks: string, right: string): string {
    return this.c.matMul(this.c.swapLast(blocks), right);
  }

  timesBlocks(left: string, blocks: string, factor: number): string {
    return this.c.scale(this.c.matMul(this.c.swapLast(left), blocks), factor);
  }
}
