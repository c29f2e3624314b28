/** The process that runs models with external data: ONNX Runtime maps such files. */
import { OnnxLoraError } from '../errors.js';
import type { Progress } from '../onnx/write.js';
import type { FromApart, ToApart, WorkName } from './apart-messages.js';

// Work is looked up by name, so its types end here.
// biome-ignore lint/suspicious/noExplicitAny: see above
type Work = (...args: any[]) => Promise<unknown>;

const works: Readonly<Record<WorkName, () => Promise<Work>>> = {
  'add-adapters': async () => (await import('./add-adapters.js')).addAdaptersHere,
  'add-slots': async () => (await import('./add-slots.js')).addSlotsHere,
  advise: async () => (await import('./advise.js')).adviseHere,
  evaluate: async () => (await import('./evaluate.js')).evaluateHere,
  train: async () => (await import('./train/run.js')).runTraining,
  'verify-merged': async () => (await import('./references.js')).verifyMergedHere,
};

const controller = new AbortController();
const send = (message: FromApart) => process.send!(message);

// Signals go to a whole group of processes; the one that started this one says what is to be done.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});
process.on('disconnect', () => process.exit());

process.on('message', (message: ToApart) => {
  if (message.kind === 'stop') controller.abort();
  else void start(message);
});

async function start({ work, paths, options }: ToApart & { kind: 'start' }): Promise<void> {
  try {
    const run = await works[work]();
    const listeners = { signal: controller.signal, onProgress, onNote };
    send({ kind: 'done', result: await run(...paths, { ...options, ...listeners }) });
  } catch (error) {
    if (!(error instanceof OnnxLoraError)) {
      send({ kind: 'broken', error });
      return;
    }
    const { code, message, node, hint } = error;
    send({ kind: 'failed', code, message, node, hint });
  }
}

const onNote = (text: string) => send({ kind: 'note', text });

// Steps of small models come faster than anybody looks.
const PROGRESS_MS = 30;
let next = 0;

function onProgress(progress: Progress): void {
  const now = performance.now();
  if (now < next && progress.done < progress.total) return;
  next = now + PROGRESS_MS;
  send({ kind: 'progress', progress });
}
