/** `patch --verify` beside MatMulNBits of float16, whose outputs CPUs round or not by what follows. */
import { expect, it } from 'vitest';
import { patch } from '../../src/commands/patch.js';
import { randomNumbers } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

const folder = temporaryFolder();
const SIZE = 32;

function twoLayers(dtype: 'float16' | 'float32'): string {
  const sizes = { K: SIZE, N: SIZE, bits: 4, block_size: 32 };
  const bytes = randomNumbers(1, (SIZE * SIZE) / 2, 127).map((x) => 128 + Math.round(x));
  const layer = (x: string, y: string) =>
    node('com.microsoft:MatMulNBits', [x, 'q', 's'], y, sizes, y);
  const graph = model({
    nodes: [layer('x', 'a'), layer('x', 'b'), node('Mul', ['a', 'b'], 'c'), layer('c', 'y')],
    inputs: [value('x', ['N', SIZE], dtype)],
    outputs: [value('y', ['N', SIZE], dtype)],
    initializers: [
      tensor('q', [SIZE, 1, SIZE / 2], bytes, 'uint8'),
      tensor('s', [SIZE], Array(SIZE).fill(0.05), dtype),
    ],
  });
  return folder.write(graph);
}

it('allows the rounding of float16 there, and no other', async () => {
  const started = async (dtype: 'float16' | 'float32') => {
    const { verification } = await patch(twoLayers(dtype), { verify: true, rank: 4 });
    return verification!;
  };
  const half = await started('float16');
  expect(half.maxRelDiff).toBeGreaterThan(0);
  expect(half.maxRelDiff).toBeLessThan(2e-3);
  expect(half.passed).toBe(true);
  expect(await started('float32')).toMatchObject({ maxRelDiff: 0, tolerance: 0, passed: true });
});
