/** Integers in blocks: the bytes of `quantize_matmul_4bits` and `_8bits` of ONNX Runtime 1.32, recorded. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { greatestStep, quantizeBlocks } from '../../../src/adapters/fold/block-codes.js';
import { type FloatName, fromFloat64, toFloat64 } from '../../../src/onnx/dtype.js';

interface Recorded {
  readonly K: number;
  readonly N: number;
  readonly seed: number;
  readonly dtype: FloatName;
  readonly bits: 4 | 8;
  readonly symmetric: boolean;
  readonly codes: string;
  readonly scales: string;
  readonly zeros: string;
}

const recorded = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../fixtures/block-codes.json'), 'utf8'),
) as Recorded[];
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** The matrix that the recording script made: sines of seven sizes. */
function matrix({ K, N, seed, dtype }: Recorded) {
  const sines = Float32Array.from(
    { length: K * N },
    (_, i) => (Math.sin(i * 12.9898 + seed) * (1 + (i % 7))) / 8,
  );
  const values = toFloat64(dtype, fromFloat64(dtype, Float64Array.from(sines)), K * N);
  return { dtype, rows: K, columns: N, values };
}

const name = ({ K, N, dtype, bits, symmetric }: Recorded) =>
  `[${K}, ${N}] ${dtype}, ${bits} bits${symmetric ? '' : ', zero points'}`;

test.each(recorded.map((one) => [name(one), one] as const))('%s', (_, one) => {
  const { bits, symmetric } = one;
  const made = quantizeBlocks(matrix(one), { bits, symmetric, blockSize: 32 });
  expect(hex(made.scales)).toBe(one.scales);
  expect(hex(made.codes)).toBe(one.codes);
  expect(made.zeros && hex(made.zeros)).toBe(symmetric ? undefined : one.zeros);
});

test('a number that is more than a step off is found', () => {
  const format = { bits: 4, symmetric: true, blockSize: 32 } as const;
  const exact = matrix(recorded[0]!);
  expect(greatestStep(exact, exact.values, format)).toBe(0);
  const step = Math.max(...exact.values.map(Math.abs)) / 8;
  const off = exact.values.map((value, i) => (i === 5 ? value + 1.1 * step : value));
  expect(greatestStep(exact, off, format)).toBeGreaterThan(1);
});
