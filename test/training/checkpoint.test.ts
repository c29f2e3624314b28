import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  checkpointFile,
  checkSettings,
  type RunProgress,
  readCheckpoint,
  writeCheckpoint,
} from '../../src/training/checkpoint.js';
import { failure, temporaryFolder } from '../support/files.js';
import { tinyData, tinyRun, trainTiny } from './tiny.js';

const files = temporaryFolder();

const progress: RunProgress = {
  version: 1,
  step: 7,
  settings: { loss: 'mse', lr: 0.1, shuffle: true, temperature: null },
  losses: { first: 2, last: 0.5, best: 0.25 },
  best: { step: 4, loss: 0.75, since: 1 },
  evaluation: { step: 6, eval: { loss: 0.8, r2: Number.NaN } },
};
const vectors = new Map([
  ['theta', Float32Array.of(1, -0, 1e-45)],
  ['m', Float32Array.of(4, 5, 6)],
]);

async function written(): Promise<string> {
  const folder = files.fresh('checkpoints');
  await writeCheckpoint(folder, { progress, vectors });
  return folder;
}

describe('a checkpoint', () => {
  it('comes back as it was, bit for bit', async () => {
    const read = readCheckpoint(await written(), ['theta', 'm'], 3);
    expect(read.progress).toEqual(progress);
    expect([...read.vectors]).toEqual([...vectors]);
    expect(Object.is(read.vectors.get('theta')![1], -0)).toBe(true);
  });

  it('replaces the one before, and a half written file beside it does not count', async () => {
    const folder = await written();
    const whole = readFileSync(checkpointFile(folder));
    writeFileSync(join(folder, 'checkpoint.safetensors.half'), whole.subarray(0, 100));
    await writeCheckpoint(folder, { progress: { ...progress, step: 8 }, vectors });
    expect(readCheckpoint(folder, ['theta', 'm'], 3).progress.step).toBe(8);
    expect(readdirSync(folder)).toHaveLength(2);
  });

  it.each<[string, (file: Buffer) => Uint8Array, string]>([
    ['cut off', (file) => file.subarray(0, -5), 'ends at byte 24 of the data, which has 19'],
    ['empty', () => Buffer.alloc(0), 'bytes'],
    [
      'with one bit changed',
      (file) => flipped(file, file.length - 2),
      'not the ones that were written',
    ],
    ['of other adapters', (file) => file, 'theta has [3] numbers, expected 4'],
    [
      'of another program',
      (file) => replaced(file, 'onnx-lora-checkpoint', 'other-lora-checkpoint'.slice(1)),
      'is not a checkpoint of onnx-lora',
    ],
    [
      'without a part of what a run needs',
      (file) => replaced(file, '\\"step\\"', '\\"stop\\"'),
      'step',
    ],
  ])('%s is refused', async (what, damage, problem) => {
    const folder = await written();
    const path = checkpointFile(folder);
    writeFileSync(path, damage(readFileSync(path)));
    const size = what === 'of other adapters' ? 4 : 3;
    const error = await failure(() => readCheckpoint(folder, ['theta', 'm'], size), 'checkpoint');
    expect(`${error.message} ${error.hint}`).toContain(problem);
    expect(error.message).toContain(path);
  });
});

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1;
  return copy;
}

/** Another text of the same length. */
function replaced(bytes: Buffer, from: string, to: string): Buffer {
  expect(to).toHaveLength(from.length);
  return Buffer.from(bytes.toString('latin1').replace(from, to), 'latin1');
}

describe('a folder for checkpoints', () => {
  it('that holds the checkpoint of another run is an error, unless it is to be replaced', async () => {
    const run = await tinyRun(files);
    const checkpoint = files.fresh('checkpoints');
    await trainTiny(files, run, { steps: 3, checkpoint });
    const { hint } = await failure(
      () => trainTiny(files, run, { steps: 3, checkpoint }),
      'output-exists',
    );
    expect(hint).toMatch(/`resume: true`.*`force: true`/);
    const anew = await trainTiny(files, run, { steps: 2, checkpoint, force: true });
    expect(anew.steps).toBe(2);
  });

  it('that is empty is started in, with a note', async () => {
    const run = await tinyRun(files);
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    const checkpoint = files.fresh('checkpoints');
    const options = { steps: 2, checkpoint, resume: true, onNote };
    expect(await trainTiny(files, run, options)).toMatchObject({ steps: 2 });
    expect(notes).toContain(`${checkpoint} holds no checkpoint yet: starting from the beginning`);
  });

  it('is resumed with the options of its run only', async () => {
    const run = await tinyRun(files);
    const checkpoint = files.fresh('checkpoints');
    const options = { steps: 4, checkpoint, resume: true };
    await trainTiny(files, run, options);
    const other = { ...options, lr: 0.5, batchSize: 3, shuffle: false };
    const { message, hint } = await failure(() => trainTiny(files, run, other), 'checkpoint');
    expect(hint).toContain('start anew with `force: true` instead of `resume: true`');
    for (const change of [
      'lr was 0.01, is 0.5',
      'batchSize was 4, is 3',
      'shuffle was true, is false',
    ])
      expect(message).toContain(change);
  });

  it('is resumed with another optimizer by force, and says what changed', async () => {
    const run = await tinyRun(files);
    const checkpoint = files.fresh('checkpoints');
    const options = { steps: 4, checkpoint, resume: true };
    await trainTiny(files, run, options);
    const other = { ...options, lr: 0.5, betas: [0.8, 0.99] };
    const { message, hint } = await failure(() => trainTiny(files, run, other), 'checkpoint');
    expect(message).toContain('lr was 0.01, is 0.5; betas was 0.9 0.999, is 0.8 0.99');
    expect(hint).toContain('go on with the new ones by `resume: true, force: true`');
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    await trainTiny(files, run, { ...other, force: true, onNote });
    expect(notes).toEqual([
      'resuming from step 4',
      'with another setting than before: lr was 0.01, is 0.5',
      'with another setting than before: betas was 0.9 0.999, is 0.8 0.99',
    ]);
    const samples = { ...other, batchSize: 3, force: true };
    const refused = await failure(() => trainTiny(files, run, samples), 'checkpoint');
    expect(refused.message).toContain('batchSize was 4, is 3');
  });

  it('is resumed with the ratio of learning rates of its run only, which was 1 before it was recorded', async () => {
    const run = await tinyRun(files);
    const checkpoint = files.fresh('checkpoints');
    const options = { steps: 4, checkpoint, resume: true };
    await trainTiny(files, run, options);
    const other = { ...options, lrRatio: 16 };
    const { message, hint } = await failure(() => trainTiny(files, run, other), 'checkpoint');
    expect(message).toContain('lrRatio was 1, is 16');
    expect(hint).toContain('go on with the new ones by `resume: true, force: true`');
    const now = { lr: 0.01, focalGamma: null, lrRatio: 1 };
    expect(checkSettings(checkpoint, { lr: 0.01 }, now, false)).toEqual([]);
  });

  it('is resumed with the data of its run only, also where they are as many', async () => {
    const run = await tinyRun(files);
    const checkpoint = files.fresh('checkpoints');
    const options = { steps: 4, checkpoint, resume: true };
    await trainTiny(files, run, options);
    const data = files.write(tinyData(21), 'other.safetensors');
    const { message } = await failure(
      () => trainTiny(files, { ...run, data }, options),
      'checkpoint',
    );
    expect(message).toContain('samples was 22, is 21');
  });

  it('is known to be none before the work begins', async () => {
    const run = await tinyRun(files);
    const checkpoint = files.write(new Uint8Array(3), 'a file');
    const phases: string[] = [];
    const onProgress = ({ phase }: { phase: string }) => phases.push(phase);
    const { message } = await failure(
      () => trainTiny(files, run, { steps: 2, checkpoint, onProgress }),
      'invalid-argument',
    );
    expect(message).toContain(checkpoint);
    expect(phases).not.toContain('training');
    const nested = join(dirname(checkpoint), 'new', 'folder');
    await trainTiny(files, run, { steps: 2, checkpoint: nested });
    expect(readdirSync(nested)).toEqual(['checkpoint.safetensors']);
  });
});
