/**
 * The check of a merged model in a process of its own. ONNX Runtime maps external data into memory: where
 * such a file is cut off meanwhile, the system ends the process that reads it (SIGBUS).
 */
import { fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { OnnxLoraError } from '../errors.js';
import type { Verification } from '../runtime/verification.js';
import type { MergeOptions } from './unmerged.js';
import type { FromCheck, ToCheck } from './verify-messages.js';

const CHILD = fileURLToPath(new URL('./verify-child.js', import.meta.url));

/** Whether this is the built library: its sources, and bundles of it, have no file to start. */
export const canVerifyApart = existsSync(CHILD);

/** As `runMerged`, in another process, which is ended when the signal aborts. */
export async function verifyApart(
  path: string,
  output: string,
  { signal, onProgress, ...options }: MergeOptions,
): Promise<Verification> {
  if (signal?.aborted) throw aborted();
  // What this process was started with (`-e`, `--import`) is not for the other one.
  const child = fork(CHILD, [], {
    execArgv: [],
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const stop = () => child.kill('SIGKILL');
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await new Promise((resolve, reject) => {
      child.on('message', (message: FromCheck) => {
        if (message.kind === 'progress') onProgress?.(message.progress);
        else if (message.kind === 'done') resolve(message.result);
        else reject(new OnnxLoraError(message.code, message.message, message));
      });
      child.on('error', reject);
      child.on('exit', (code, by) => reject(signal?.aborted ? aborted() : ended(output, code, by)));
      const task: ToCheck = { path, output, options: plain(options) };
      child.send(task, (error) => error && reject(error));
    });
  } finally {
    signal?.removeEventListener('abort', stop);
    child.kill('SIGKILL');
  }
}

/** Options without functions, which no other process can call. */
function plain(options: ToCheck['options']): ToCheck['options'] {
  const entries = Object.entries(options).filter(([, value]) => typeof value !== 'function');
  return Object.fromEntries(entries);
}

function aborted(): OnnxLoraError {
  return new OnnxLoraError('aborted', 'interrupted while comparing');
}

function ended(output: string, code: number | null, by: NodeJS.Signals | null): Error {
  if (by === null) return new Error(`the check of ${output} ended with ${code}`);
  const isCut = by === 'SIGBUS' || by === 'SIGSEGV';
  return new OnnxLoraError(
    isCut ? 'io' : 'runtime',
    isCut
      ? `a data file changed while ${output} was checked, which ended the check (${by})`
      : `the system ended the check of ${output} (${by})`,
    {
      hint: isCut
        ? 'Let nothing write to the files of the model meanwhile, and merge again.'
        : 'Is there memory enough for the model? --no-verify leaves the check out.',
    },
  );
}
