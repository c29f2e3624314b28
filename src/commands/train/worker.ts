/** The thread that trains: ONNX Runtime blocks it during every step. */
import { parentPort, workerData } from 'node:worker_threads';
import { OnnxLoraError } from '../../errors.js';
import type { Progress } from '../../onnx/write.js';
import type { FromWorker, ToWorker, WorkerTask } from './messages.js';
import { runTraining } from './run.js';

const port = parentPort!;
const { path, options } = workerData as WorkerTask;
const controller = new AbortController();
const post = (message: FromWorker) => port.postMessage(message);

// Steps of small models come faster than anybody looks.
const PROGRESS_MS = 30;
let nextProgress = 0;
const postProgress = (progress: Progress) => {
  const now = performance.now();
  if (now < nextProgress && progress.done < progress.total) return;
  nextProgress = now + PROGRESS_MS;
  post({ kind: 'progress', progress });
};

port.on('message', (message: ToWorker) => {
  if (message === 'stop') controller.abort();
});

try {
  const result = await runTraining(path, {
    ...options,
    signal: controller.signal,
    onProgress: postProgress,
    onNote: (text) => post({ kind: 'note', text }),
  });
  post({ kind: 'done', result });
} catch (error) {
  if (!(error instanceof OnnxLoraError)) throw error;
  const { code, message, node, hint } = error;
  post({ kind: 'failed', code, message, node, hint });
}
port.close();
