/** com.microsoft Attention without a bias, whose kernel ends the process: it runs as one with zeros everywhere. */
import { expect, it } from 'vitest';
import { evaluate } from '../../src/commands/evaluate.js';
import { merge } from '../../src/commands/merge.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { patch } from '../../src/commands/patch.js';
import { runTraining } from '../../src/commands/train/run.js';
import { safetensors } from '../data/data.js';
import { randomNumbers } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

const folder = temporaryFolder();
const [WIDTH, TOKENS, SAMPLES] = [8, 3, 6];
const how = { provider: 'cpu', threads: 1 } as const;

/** @param bias zeros, or none at all */
function attention(bias: 'none' | 'zeros'): string {
  const inputs = ['x', 'w', ...(bias === 'none' ? [] : ['b'])];
  return folder.write(
    model({
      nodes: [
        node(
          'com.microsoft:Attention',
          inputs,
          'y',
          { num_heads: 2 },
          '/h.0/attn/c_attn/Attention',
        ),
      ],
      initializers: [
        tensor('w', [WIDTH, 3 * WIDTH], randomNumbers(1, 3 * WIDTH * WIDTH, 0.5)),
        ...(bias === 'none' ? [] : [tensor('b', [3 * WIDTH], Array(3 * WIDTH).fill(0))]),
      ],
      inputs: [value('x', ['batch', TOKENS, WIDTH])],
      outputs: [value('y', ['batch', TOKENS, WIDTH])],
    }),
  );
}

const numbers = (seed: number) =>
  [
    'float32',
    [SAMPLES, TOKENS, WIDTH],
    [...randomNumbers(seed, SAMPLES * TOKENS * WIDTH)],
  ] as const;

async function tuned(base: string) {
  const data = folder.write(safetensors({ x: numbers(2), target: numbers(3) }), 'data.safetensors');
  const { output, verification } = await patch(base, {
    rank: 4,
    verify: true,
    output: folder.fresh(),
  });
  const options = {
    ...how,
    data,
    loss: 'mse',
    steps: 5,
    lr: 0.05,
    output: folder.fresh(),
  } as const;
  const run = await runTraining(output, resolveTrainOptions(options));
  const merged = await merge(run.output, { output: folder.fresh() });
  const { loss } = await evaluate(merged.output, { ...how, data, loss: 'mse' });
  return { verification, guard: run.guard, fold: merged.verification, losses: run.loss!, loss };
}

it('is patched, trained and folded as one with zeros', async () => {
  const [found, expected] = [await tuned(attention('none')), await tuned(attention('zeros'))];
  expect(found.verification).toMatchObject({ passed: true, maxAbsDiff: 0 });
  expect(found.guard).toMatchObject({ passed: true });
  expect(found.fold).toMatchObject({ passed: true, proven: true });
  expect(found.losses.last).toBeCloseTo(expected.losses.last, 6);
  expect(found.losses.last).toBeLessThan(found.losses.first);
  expect(found.loss).toBeCloseTo(expected.loss, 6);
});
