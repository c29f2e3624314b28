/** Models that compute in float16: adapters and optimizer are float32 all the same. */
import { expect, test } from 'vitest';
import { resolveTrainOptions } from '../../../src/commands/options/train.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { temporaryFolder } from '../../support/files.js';
import { zooSamples } from '../../support/samples.js';
import { zooModel } from '../../support/zoo.js';
import { logOf, tinyRun, trainTiny } from '../../training/tiny.js';

const files = temporaryFolder();

test('a float16 model learns, gradients of gathered rows included', async () => {
  const { output } = await patch(zooModel('bert-fp16'), { rank: 8, output: files.fresh() });
  const data = files.write(zooSamples('bert-cls-torchscript', 'lora', 20), 'data.safetensors');
  const options = { data, loss: 'cross-entropy', lr: 1e-2, epochs: 3, provider: 'cpu' } as const;
  const result = await runTraining(
    output,
    resolveTrainOptions({ ...options, output: files.fresh() }),
  );
  expect(result.loss!.best).toBeLessThan(0.5 * result.loss!.first);
});

test('a loss that is scaled gives the same run', async () => {
  const run = await tinyRun(files);
  const options = { steps: 4, accumulate: 2 };
  const log = (name: string) => files.fresh(`${name}.jsonl`);
  const [plain, scaled] = [log('plain'), log('scaled')];
  await trainTiny(files, run, { ...options, log: plain });
  await trainTiny(files, run, { ...options, log: scaled, lossScale: 2 ** 16 });
  expect(logOf(scaled)).toEqual(logOf(plain));
});

test('a scale that is not a power of two is refused', () => {
  const options = { data: 'data.npz', loss: 'mse', lossScale: '1000' } as const;
  expect(() => resolveTrainOptions(options)).toThrow(
    /`lossScale` is "1000", expected auto or a power of two/,
  );
});
