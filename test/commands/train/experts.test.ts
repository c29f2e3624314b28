/** A mixture of experts with a MatMul for each: the tokens of an expert are selected, and may be none. */
import { expect, test } from 'vitest';
import { inspect } from '../../../src/commands/inspect.js';
import { resolveTrainOptions } from '../../../src/commands/options/train.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { encodeSafetensors } from '../../../src/formats/safetensors-output.js';
import { randomNumbers } from '../../support/adapters.js';
import { temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';

const files = temporaryFolder();
const [SIZE, SAMPLES] = [8, 6];

/** Rows of x whose first number is above a bound go through a layer. */
function expert(bound: number) {
  return model({
    nodes: [
      node('Slice', ['x', 'zero', 'one', 'one'], 'first'),
      node('Greater', ['first', 'bound'], 'chosen'),
      node('NonZero', ['chosen'], 'places'),
      node('Gather', ['places', 'number'], 'tokens', { axis: 0 }),
      node('Gather', ['x', 'tokens'], 'rows', { axis: 0 }),
      node('MatMul', ['rows', 'w'], 'out', {}, 'experts.0.up'),
      node('Unsqueeze', ['tokens', 'one'], 'indices'),
      node('MatMul', ['x', 'v'], 'shared', {}, 'shared'),
      node('ScatterND', ['shared', 'indices', 'out'], 'y', { reduction: 'add' }),
    ],
    initializers: [
      tensor('w', [SIZE, SIZE], randomNumbers(1, SIZE * SIZE)),
      tensor('v', [SIZE, SIZE], randomNumbers(2, SIZE * SIZE)),
      tensor('bound', [], [bound]),
      tensor('number', [], [0], 'int64'),
      tensor('zero', [1], [0], 'int64'),
      tensor('one', [1], [1], 'int64'),
    ],
    inputs: [value('x', ['n', SIZE])],
    outputs: [value('y', ['n', SIZE])],
  });
}

test.each([
  [10, 'none of them', 0],
  [-10, 'all of them', 1],
])('rows above %d, which are %s', async (bound, _, moved) => {
  const output = files.fresh();
  await patch(files.write(expert(bound)), { rank: 4, blocks: 2, output });
  const array = (name: string, seed: number) => ({
    ...{ name, dtype: 'float32', shape: [SAMPLES, SIZE] },
    data: new Uint8Array(Float32Array.from(randomNumbers(seed, SAMPLES * SIZE)).buffer),
  });
  const samples = encodeSafetensors([array('x', 3), array('target', 4)] as never);
  const data = files.write(samples, 'data.safetensors');
  const options = { data, loss: 'mse', lr: 1e-2, steps: 2, batchSize: 3, provider: 'cpu' } as const;
  const trained = files.fresh();
  const result = await runTraining(output, resolveTrainOptions({ ...options, output: trained }));
  expect(result.loss!.last).toBeGreaterThan(0);
  const { targets } = await inspect(trained);
  const norm = (module: string) =>
    targets.find((target) => target.module === module)!.adapter!.norm;
  expect(norm('shared')).toBeGreaterThan(0);
  expect(Math.sign(norm('experts.0.up'))).toBe(moved);
});
