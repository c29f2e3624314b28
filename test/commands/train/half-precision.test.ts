/** Models that compute in float16: adapters and optimizer are float32 all the same. */
import { describe, expect, test } from 'vitest';
import { resolveTrainOptions } from '../../../src/commands/options/train.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { LossScale } from '../../../src/training/loss-scale.js';
import { safetensors } from '../../data/data.js';
import { randomNumbers } from '../../support/adapters.js';
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
    /`lossScale` is "1000", expected auto, off or a power of two/,
  );
});

describe.each([1, 3])(
  'a scale at which the gradient overflows, with %i batches an update',
  (accumulate) => {
    const options = { accumulate, schedule: 'constant', shuffle: false } as const;

    test('is halved, the update left out and told, and all others are those of a run without', async () => {
      const run = { ...(await tinyRun(files)), data: files.write(steepData(), 'data.safetensors') };
      const [plain, scaled] = [files.fresh('plain.jsonl'), files.fresh('scaled.jsonl')];
      const notes: string[] = [];
      const onNote = (text: string) => notes.push(text);
      const more = { ...options, lossScale: 2 ** 120, onNote };
      const { lossScale } = await trainTiny(files, run, { ...more, steps: 12, log: scaled });
      const records = logOf(scaled) as {
        loss: number;
        gradNorm: number | null;
        lossScale?: number;
      }[];
      const skipped = records.filter((record) => record.lossScale !== undefined);
      expect(skipped.length).toBeGreaterThan(1);
      expect(skipped.length).toBeLessThan(10);
      expect(skipped.map((record) => record.lossScale)).toEqual(
        skipped.map((_, i) => 2 ** (119 - i)),
      );
      expect(skipped.every(({ gradNorm }) => gradNorm === null)).toBe(true);
      expect(lossScale).toEqual({ last: 2 ** (120 - skipped.length), skipped: skipped.length });
      expect(notes).toContain(
        `step 1: the gradient overflows with the loss scale ${2 ** 120}, so the update is left out; the scale is ${2 ** 119} now`,
      );
      const steps = 12 - skipped.length;
      await trainTiny(files, run, { ...options, steps, log: plain });
      const numbersOf = (path: string) =>
        (logOf(path) as { loss: number; gradNorm: number | null }[])
          .filter(({ gradNorm }) => gradNorm !== null)
          .map(({ loss, gradNorm }) => [loss, gradNorm]);
      expect(numbersOf(scaled)).toEqual(numbersOf(plain));
    });

    test('is the same after a checkpoint', async () => {
      const run = { ...(await tinyRun(files)), data: files.write(steepData(), 'data.safetensors') };
      const more = { ...options, lossScale: 2 ** 120, steps: 8 };
      const [whole, parts] = [files.fresh('whole.jsonl'), files.fresh('parts.jsonl')];
      const kept = { checkpoint: files.fresh('kept'), checkpointEvery: 2 };
      await trainTiny(files, run, { ...more, log: whole });
      const stop = new AbortController();
      const onProgress = ({ done }: { done: number }) => done === 3 && stop.abort();
      const broken = { ...more, ...kept, log: parts, signal: stop.signal, onProgress };
      await expect(trainTiny(files, run, broken)).rejects.toThrow('interrupted after step 3');
      await trainTiny(files, run, { ...more, ...kept, log: parts, resume: true });
      const without = (records: object[]) => records.map((record) => ({ ...record, epoch: 0 }));
      expect(without(logOf(parts))).toEqual(without(logOf(whole)));
    });
  },
);

test('an overflow without a scale ends the run', () => {
  const scale = new LossScale(1);
  expect(scale.shrink()).toBe(false);
});

test('a scale grows after 2000 updates without an overflow', () => {
  const scale = new LossScale(8);
  for (let i = 0; i < 1999; i++) scale.grow();
  expect(scale.value).toBe(8);
  scale.grow();
  expect(scale.value).toBe(16);
  for (let i = 0; i < 1999; i++) scale.grow();
  scale.shrink();
  scale.grow();
  expect(scale.state).toEqual({ value: 8, good: 1, skipped: 1 });
});

/** One batch, far from its targets, so that all updates see the same samples. */
function steepData(): Uint8Array {
  return safetensors({
    x: ['float32', [4, 6], [...randomNumbers(1, 24)]],
    target: ['float32', [4, 4], [...randomNumbers(2, 16, 2e4)]],
  });
}
