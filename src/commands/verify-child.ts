/** The process that checks models with external data: ONNX Runtime maps such files. */
import { OnnxLoraError } from '../errors.js';
import type { FromCheck, ToCheck } from './verify-messages.js';

const send = (message: FromCheck) => process.send!(message);

// Ctrl-C goes to the whole group of processes; the one that started this one ends it.
process.on('SIGINT', () => {});
process.on('disconnect', () => process.exit());

process.once('message', async ({ path, output, options }: ToCheck) => {
  try {
    const { runMerged } = await import('./references.js');
    const onProgress = (progress: Extract<FromCheck, { kind: 'progress' }>['progress']) =>
      send({ kind: 'progress', progress });
    send({ kind: 'done', result: await runMerged(path, output, { ...options, onProgress }) });
  } catch (error) {
    if (!(error instanceof OnnxLoraError)) throw error;
    const { code, message, node, hint } = error;
    send({ kind: 'failed', code, message, node, hint });
  }
});
