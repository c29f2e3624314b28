/** A patched model of two small layers and data that it can learn: what a whole run needs. */
import { readFileSync } from 'node:fs';
import {
  type ResolvedTrainOptions,
  resolveTrainOptions,
  type TrainOptions,
} from '../../src/commands/options/train.js';
import type { TrainResult } from '../../src/commands/train/result.js';
import { runTraining } from '../../src/commands/train/run.js';
import { safetensors } from '../data/data.js';
import { insertInto, randomNumbers } from '../support/adapters.js';
import type { TemporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';

export const SAMPLES = 22;

/** `y = tanh(x·W1)·W2`, x [batch, 6] and y [batch, 4]. */
export function tinyModel(): Uint8Array {
  return model({
    nodes: [
      node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
      node('Tanh', ['h'], 't'),
      node('MatMul', ['t', 'w2'], 'y', {}, 'second'),
    ],
    initializers: [tensor('w1', [6, 8]), tensor('w2', [8, 4])],
    inputs: [value('x', ['batch', 6])],
    outputs: [value('y', ['batch', 4])],
  });
}

export interface TinyRun {
  readonly model: string;
  readonly data: string;
}

/** The patched model and a dataset for it as files. */
export async function tinyRun(files: TemporaryFolder, samples = SAMPLES): Promise<TinyRun> {
  const options = { rank: 4, blocks: 2, targets: ['all'] };
  return {
    model: files.write(await insertInto(tinyModel(), options)),
    data: files.write(tinyData(samples), 'data.safetensors'),
  };
}

export function tinyData(samples = SAMPLES, seed = 1): Uint8Array {
  return safetensors({
    x: ['float32', [samples, 6], [...randomNumbers(seed, samples * 6)]],
    target: ['float32', [samples, 4], [...randomNumbers(seed + 1, samples * 4)]],
  });
}

/** Options of a short run on one thread. */
export function tinyOptions(
  { data }: TinyRun,
  more: Partial<TrainOptions> = {},
): ResolvedTrainOptions {
  const given = { data, loss: 'mse', batchSize: 4 } as const;
  const course = { lr: 0.01, provider: 'cpu', threads: 1 } as const;
  // A step that is only written has no course.
  const run = more.emitStepGraph === undefined ? course : {};
  return resolveTrainOptions({ ...given, ...run, ...more });
}

/** Trains; the output has a name of its own in `files`. */
export function trainTiny(
  files: TemporaryFolder,
  run: TinyRun,
  more: Partial<TrainOptions> = {},
): Promise<TrainResult> {
  const output = files.fresh('trained.onnx');
  return runTraining(run.model, tinyOptions(run, { output, ...more }));
}

/** The records of a log without what a clock has a say in. */
export function logOf(path: string): object[] {
  const lines = readFileSync(path, 'utf8').trim().split('\n');
  return lines.map((line) => {
    const { ms: _, samplesPerSecond: __, ...record } = JSON.parse(line);
    return record;
  });
}
