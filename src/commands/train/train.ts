/** Training in a thread of its own, so that the caller's stays free. */
import { Worker } from 'node:worker_threads';
import { OnnxLoraError } from '../../errors.js';
import { withoutTelemetry } from '../../runtime/telemetry.js';
import { hasCheckpoint } from '../../training/checkpoint.js';
import { apart, runsApart } from '../apart.js';
import { locateModel, onModel, withTokenizer } from '../model-folder.js';
import {
  type ResolvedTrainOptions,
  resolveTrainOptions,
  type TrainOptions,
} from '../options/train.js';
import type { FromWorker, ToWorker, WorkerTask } from './messages.js';
import type { TrainResult } from './result.js';

/**
 * Trains the adapters of the patched model at `path` with ONNX Runtime, and writes the trained model.
 * The work is done in a worker thread, or in a process of its own where the model has external data;
 * when `signal` aborts, it ends after the current step and leaves a checkpoint.
 * @throws OnnxLoraError `invalid-argument`, `invalid-data`, `no-adapter`, `unsupported`, `provider`,
 * `verification` where the guard finds another model, `checkpoint`, `diverged`, `aborted`, and those of
 * reading and writing
 * @example
 * ```ts
 * import { train } from 'onnx-lora';
 *
 * const { output, loss } = await train('model.lora.onnx', {
 *   data: 'train.safetensors',
 *   loss: 'cross-entropy',
 *   epochs: 2,
 *   onProgress: ({ phase, done, total }) => console.log(`${phase}: ${done} of ${total}`),
 * });
 * console.log(`${output}: loss ${loss?.first} to ${loss?.last}`);
 * ```
 */
export async function train(path: string, options: TrainOptions): Promise<TrainResult> {
  const resolved = resolveTrainOptions(options);
  if (resolved.emitStepGraph !== undefined) {
    const located = locateModel(path, options.onNote);
    return await trainFile(located.file, withTokenizer(resolved, located));
  }
  return await onModel(path, resolved, 'trained', (located, options) =>
    trainFile(located.file, withTokenizer(options, located)),
  );
}

async function trainFile(path: string, resolved: ResolvedTrainOptions): Promise<TrainResult> {
  if (!runsApart(path)) return await trainInThread(path, resolved);
  return await apart({
    work: 'train',
    paths: [path],
    options: resolved,
    label: `the training of ${path}`,
    advice: () => wayOn(resolved),
    stop: 'ask',
  });
}

/** Advice after a run that the system ended. */
function wayOn({ checkpoint }: ResolvedTrainOptions): string {
  return checkpoint !== undefined && hasCheckpoint(checkpoint)
    ? `The last checkpoint is kept: go on with \`checkpoint: ${JSON.stringify(checkpoint)}, resume: true\``
    : 'No state was kept: with `checkpoint: FOLDER` a run can go on from its last one.';
}

async function trainInThread(path: string, options: ResolvedTrainOptions): Promise<TrainResult> {
  const { signal, onProgress, onNote, ...rest } = options;
  const workerData: WorkerTask = { path, options: rest };
  // Before the thread begins: from there it can only be asked for.
  await withoutTelemetry();
  const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
  const stop = () => worker.postMessage('stop' satisfies ToWorker);
  if (signal?.aborted) stop();
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await new Promise((resolve, reject) => {
      worker.on('message', (message: FromWorker) => {
        if (message.kind === 'progress') onProgress(message.progress);
        else if (message.kind === 'note') onNote(message.text);
        else if (message.kind === 'done') resolve(message.result);
        else reject(new OnnxLoraError(message.code, message.message, message));
      });
      worker.on('error', reject);
      worker.on('exit', (code) => reject(new Error(`the training thread ended with ${code}`)));
    });
  } finally {
    signal?.removeEventListener('abort', stop);
    await worker.terminate();
  }
}
