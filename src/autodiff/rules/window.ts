/** The sliding windows of convolutions and pools: kernel, strides, dilations, pads. */
import { Refusal } from '../refusal.js';
import type { RuleContext } from '../rule.js';

/** A window over the axes after batch and channels. */
export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly begin: readonly number[];
  readonly end: readonly number[];
}

/** @param wide the value that the window slides over */
export function windowOf(
  { c, int, ints, text }: RuleContext,
  kernel: readonly number[],
  wide: string,
): Window {
  const ones = kernel.map(() => 1);
  const strides = ints('strides') ?? ones;
  const dilations = ints('dilations') ?? ones;
  const zeros = kernel.flatMap(() => [0, 0]);
  const mode = text('auto_pad', 'NOTSET');
  const explicit = mode === 'VALID' ? zeros : (ints('pads') ?? zeros);
  if (mode !== 'SAME_UPPER' && mode !== 'SAME_LOWER') {
    const [begin, end] = [explicit.slice(0, kernel.length), explicit.slice(kernel.length)];
    return { kernel, strides, dilations, begin, end };
  }
  const totals = kernel.map((size, i) => {
    const reach = (size - 1) * dilations[i]! + 1;
    if (strides[i] === 1) return reach - 1;
    const length = c.dims(wide)[2 + i];
    if (typeof length !== 'number') {
      throw new Refusal(`auto_pad depends on the size of ${wide}, which is not static`);
    }
    // As many outputs as strides begin inside the input.
    const outputs = Math.ceil(length / strides[i]!);
    return Math.max(0, (outputs - 1) * strides[i]! + reach - length);
  });
  const small = totals.map((total) => Math.floor(total / 2));
  const large = totals.map((total, i) => total - small[i]!);
  const [begin, end] = mode === 'SAME_LOWER' ? [large, small] : [small, large];
  if (int('ceil_mode', 0) !== 0) throw new Refusal('auto_pad with ceil_mode is not defined');
  return { kernel, strides, dilations, begin, end };
}
