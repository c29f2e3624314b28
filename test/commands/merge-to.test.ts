/** Folds whose result is stored in blocks of integers. */
import { readFileSync, statSync } from 'node:fs';
import { expect, test } from 'vitest';
import { checkBlocks } from '../../src/commands/convert-blocks.js';
import { evaluate } from '../../src/commands/evaluate.js';
import { extract } from '../../src/commands/extract.js';
import { foldAdapters, merge } from '../../src/commands/merge.js';
import { openModel } from '../../src/onnx/parse.js';
import { safetensors } from '../data/data.js';
import { patchFile, trained } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';
import { zooModel } from '../support/zoo.js';

const folder = temporaryFolder();
const [IN, OUT] = [40, 16];

/** Two products and a Gemm, with adapters that change them by a fifth. */
async function patched(): Promise<string> {
  const output = folder.fresh();
  const bytes = model({
    nodes: [
      node('MatMul', ['x', 'w'], 'h', {}, 'first'),
      node('Tanh', ['h'], 't'),
      node('MatMul', ['t', 'v'], 'p', {}, 'second'),
      node('Gemm', ['p', 'u'], 'y', { transB: 1 }, 'third'),
    ],
    initializers: [
      tensor('w', [IN, OUT], waves(IN * OUT, 1)),
      tensor('v', [OUT, OUT], waves(OUT * OUT, 2)),
      tensor('u', [4, OUT], waves(4 * OUT, 3)),
    ],
    inputs: [value('x', ['rows', IN])],
    outputs: [value('y', ['rows', 4])],
  });
  await patchFile(folder.write(bytes), output, {
    ...{ rank: 2, blocks: 1 },
    factors: (planned) => trained(planned, 3, 0.4),
  });
  return output;
}

const waves = (count: number, seed: number) =>
  Float64Array.from({ length: count }, (_, i) => Math.sin(i * 7.3 + seed) / 4);

test.each([
  ['q4', true, 0.2],
  ['q4', false, 0.2],
  ['q8', true, 0.02],
  ['q8', false, 0.02],
] as const)('%s, symmetric: %s', async (to, symmetric, most) => {
  const path = await patched();
  const output = folder.fresh();
  const result = await merge(path, { output, to, symmetric });
  expect(result.verification).toMatchObject({ passed: true, proven: true });
  const { quantized } = result;
  expect(quantized).toMatchObject({ to, nodes: 2, verification: { passed: true, proven: true } });
  for (const { error, norm } of quantized!.weights!) expect(error / norm).toBeLessThan(most);
  const [first, second, third] = result.merged;
  for (const one of [first, second]) expect(one!.lost).toBeGreaterThan(0);
  // ONNX Runtime's quantizer leaves Gemm alone, too.
  expect(third!.lost).toBeUndefined();
  expect(operators(output)).toEqual(['MatMulNBits', 'Tanh', 'MatMulNBits', 'Gemm']);
  expect([...initializers(output)].includes('w')).toBe(false);
});

test('nothing is proven where no weight becomes integers', async () => {
  const output = folder.fresh();
  const gemm = model({
    nodes: [node('Gemm', ['x', 'w'], 'y', {}, 'only')],
    initializers: [tensor('w', [IN, OUT], waves(IN * OUT, 1))],
    inputs: [value('x', ['rows', IN])],
    outputs: [value('y', ['rows', OUT])],
  });
  const factors = {
    rank: 2,
    blocks: 1,
    factors: (planned: Parameters<typeof trained>[0]) => trained(planned, 3, 0.4),
  };
  const path = folder.fresh();
  await patchFile(folder.write(gemm), path, factors);
  const { quantized } = await merge(path, { output, to: 'q4' });
  const reason = 'no weight of the model became integers';
  expect(quantized!.verification).toMatchObject({ passed: true, proven: false, reason });
});

test('a file with another integer does not pass', async () => {
  const path = await patched();
  const [floats, output] = [folder.fresh(), folder.fresh()];
  const format = { bits: 4, blockSize: 32, symmetric: true } as const;
  await foldAdapters(path, { output: floats });
  await merge(path, { output, to: 'q4' });
  const file = readFileSync(output);
  const opened = openModel(output);
  const { data } = opened.graph.initializers.get('w_Q4')!;
  opened.close();
  file[data.kind === 'raw' ? data.field.value : 0]! ^= 8;
  const { verification } = await checkBlocks(floats, folder.write(file), format, {});
  expect(verification.passed).toBe(false);
  expect(verification.reason).toMatch(/a number of w is .* steps off/);
});

test('adapters of a file, and weights that were in 4 bits before', async () => {
  const base = zooModel('llama-q4');
  const lora = folder.fresh();
  await patchFile(base, lora, {
    ...{ rank: 2, blocks: 1 },
    factors: (planned) => trained(planned, 3, 0.05),
  });
  const adapter = folder.fresh('adapter.safetensors');
  await extract(lora, { output: adapter });
  const output = folder.fresh();
  const { quantized } = await merge(base, { adapter, output, to: 'q4' });
  expect(quantized).toMatchObject({ nodes: 15, verification: { passed: true } });
  expect(statSync(output).size).toBeLessThan(1.2 * statSync(base).size);
});

test('the loss before and after, on samples', async () => {
  const data = safetensors({
    x: ['float32', [6, IN], [...waves(6 * IN, 5)]],
    target: ['float32', [6, 4], [...waves(24, 6)]],
  });
  const path = await patched();
  const output = folder.fresh();
  const options = { data: folder.write(data, 'data.safetensors'), loss: 'mse' } as const;
  const { loss } = await merge(path, { ...options, output, to: 'q4' });
  const measured = async (model: string) => (await evaluate(model, options)).loss;
  expect(loss).toEqual({ before: await measured(path), after: await measured(output) });
  expect(loss!.after).not.toBe(loss!.before);
  const error = await failure(() => merge(path, { data: options.data }), 'invalid-argument');
  expect(error.message).toBe('`data` needs `loss`');
});

test('an output that is there is not written to, and requantize is another way', async () => {
  const path = await patched();
  await failure(
    () => merge(path, { output: folder.write(new Uint8Array(1)), to: 'q4' }),
    'output-exists',
  );
  const both = { to: 'q4', quantized: 'requantize', output: folder.fresh() } as const;
  const { message } = await failure(() => merge(path, both), 'invalid-argument');
  expect(message).toBe('`to` has no effect with `quantized` requantize');
});

function operators(path: string): string[] {
  const opened = openModel(path);
  const found = opened.graph.nodes.map(({ opType }) => opType);
  opened.close();
  return found;
}

function initializers(path: string): string[] {
  const opened = openModel(path);
  const found = [...opened.graph.initializers.keys()];
  opened.close();
  return found;
}
