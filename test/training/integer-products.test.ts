/**
 * Training beside products of integers: of BERT quantized dynamically the first steps are those that PEFT took
 * on the float model, but for the rounding of weights and activations.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { apply } from '../../src/commands/apply.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { runTraining } from '../../src/commands/train/run.js';
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { temporaryFolder } from '../support/files.js';
import { ZOO, zooJson, zooModel, zooTensors } from '../support/zoo.js';

const folder = temporaryFolder();
const CASE = 'bert-cls-torchscript';
const STEPS = 10;

interface Recorded {
  readonly loss_per_step: readonly number[];
  readonly grad_norm_per_step: readonly number[];
}

/** The greatest differences of loss and norm, as shares. Measured: 0.6 % and 4.5 %; with ranges that
 * were fixed for the model before training, 6.5 % and 25 %. */
const cases = [
  ['bert-int8-dynamic', 0.01, 0.06],
  ['bert-int8-channel', 0.01, 0.06],
  ['bert-qdq', 0.08, 0.3],
] as const;

test.each(cases)('%s trains as the float model', async (name, ofLoss, ofNorm) => {
  const recorded = zooJson<Recorded>(CASE, 'lora', 'expected.json');
  const { output: base } = await apply(zooModel(name), join(ZOO, CASE, 'lora/init'), {
    output: folder.fresh(),
  });
  const log = folder.fresh('log.jsonl');
  const given = { data: samples(), loss: 'cross-entropy', shuffle: false, threads: 1 } as const;
  const hyperparameters = { lr: 0.01, weightDecay: 0.01, clip: 1, schedule: 'constant' } as const;
  const run = {
    steps: STEPS,
    batchSize: 8,
    provider: 'cpu',
    log,
    output: folder.fresh(),
  } as const;
  const { guard } = await runTraining(
    base,
    resolveTrainOptions({ ...given, ...hyperparameters, ...run }),
  );
  expect(guard?.passed).toBe(true);
  const steps = readFileSync(log, 'utf8').trim().split('\n');
  for (const [i, line] of steps.entries()) {
    const { loss, gradNorm } = JSON.parse(line) as { loss: number; gradNorm: number };
    expect(Math.abs(loss / recorded.loss_per_step[i]! - 1), `loss of step ${i}`).toBeLessThan(
      ofLoss,
    );
    const norm = recorded.grad_norm_per_step[i]!;
    expect(Math.abs(gradNorm / norm - 1), `norm of step ${i}`).toBeLessThan(ofNorm);
  }
  expect(steps).toHaveLength(STEPS);
});

/** The recorded batches one after the other. */
function samples(): string {
  return zooTensors([CASE, 'lora', 'train.safetensors'], (file) => {
    const tensors = [...file.tensors].map(([key, { dtype, shape }]) => {
      const [steps = 1, batch = 1, ...rest] = shape;
      const name = key.replace('input.', '');
      return {
        name,
        dtype: dtype as 'int64',
        shape: [steps * batch, ...rest],
        data: file.read(key),
      };
    });
    return folder.write(encodeSafetensors(tensors), 'train.safetensors');
  });
}
