/** com.microsoft MatMulBnb4: products with weights of bitsandbytes, 4 bits a number. */
import type { OpBuilder } from '../op-builder.js';
import { Refusal } from '../refusal.js';
import type { GradientRule } from '../rule.js';

/** `Y = X · W`: dX = dY · Wᵀ, which is what the operator reads, [N, K]. */
export const matMulBnb4: GradientRule = ({ x: [, codes, greatest], dy: [dy], c, int }) => [
  () => {
    const [k, n, block] = [int('K', 0), int('N', 0), int('block_size', 0)];
    if ((k * n) % block !== 0) throw new Refusal(`its last block is not ${block} numbers long`);
    const shares = sharesOf(c, codes!, k * n, int('quant_type', 0) === 0 ? FP4 : NF4);
    const type = { dtype: c.type(dy!).dtype, shape: [(k * n) / block, block] };
    const blocks = c.reshape(shares, c.integers(type.shape), type.shape);
    const scales = c.reshape(greatest!, c.integers([type.shape[0]!, 1]), [type.shape[0]!, 1]);
    const weight = c.reshape(c.mul(blocks, scales), c.integers([n, k]), [n, k]);
    return c.matMul(dy!, weight);
  },
];

/** Each number as a share of the greatest one of its block: two codes a byte, the first in its upper half. */
function sharesOf(c: OpBuilder, bytes: string, count: number, table: readonly number[]): string {
  const half = count / 2;
  const whole = c.cast(c.reshape(bytes, c.integers([half, 1]), [half, 1]), 'int32');
  const upper = c.div(whole, c.number(whole, 16));
  const lower = c.sub(whole, c.mul(upper, c.number(whole, 16)));
  const codes = c.reshape(c.concat([upper, lower], 1), c.integers([count]), [count]);
  const type = { dtype: 'float32', shape: [count] } as const;
  return c.op('Gather', [c.vector('float32', table), codes], type);
}

/** Quantiles of the normal distribution, between -1 and 1. */
const NF4 = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1,
];

const HALF_OF_FP4 = [0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4];
const FP4 = [...HALF_OF_FP4, ...HALF_OF_FP4.map((share) => -share)];
