/** Folds into quantized weights whose floats are more than a model file can hold. */
import { existsSync, statSync } from 'node:fs';
import { expect, test, vi } from 'vitest';
import { merge } from '../../src/commands/merge.js';
import { patchFile, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

const LIMIT = 14_000;
vi.mock('../../src/onnx/limits.js', () => ({ MAX_MESSAGE_BYTES: 14_000 }));

const folder = temporaryFolder();
const N = 64;

async function patched(): Promise<string> {
  const output = folder.fresh();
  const bytes = model({
    nodes: [
      node('DequantizeLinear', ['codes', 'scale'], 'w'),
      node('MatMul', ['x', 'w'], 'y', {}, 'layer'),
    ],
    initializers: [
      tensor(
        'codes',
        [N, N],
        Float64Array.from({ length: N * N }, (_, i) => (i * 37) % 101),
        'int8',
      ),
      tensor('scale', [], [0.01]),
    ],
    inputs: [value('x', ['rows', N])],
    outputs: [value('y', ['rows', N])],
  });
  await patchFile(folder.write(bytes), output, {
    ...{ rank: 2, blocks: 1 },
    factors: (planned) => trained(planned, 3, 0.1),
  });
  expect(statSync(output).size).toBeLessThan(LIMIT);
  return output;
}

test.each([undefined, 'q4', 'fp16'] as const)('floats go to a data file; to: %s', async (to) => {
  const output = folder.fresh();
  const how = to ? { to } : { quantized: 'dequantize' as const };
  const { verification, quantized } = await merge(await patched(), { output, ...how });
  expect(verification).toMatchObject({ passed: true, proven: true });
  if (to) expect(quantized!.verification).toMatchObject({ passed: true, proven: true });
  expect(existsSync(`${output}.data`)).toBe(true);
  expect(statSync(output).size).toBeLessThan(LIMIT);
});
