/**
 * Work on models with external data, in a process of its own. ONNX Runtime maps such data into memory: where
 * a file of it is cut off meanwhile, the system ends the process that reads it (SIGBUS).
 */
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { OnnxLoraError } from '../errors.js';
import type { WorkOptions } from '../onnx/write.js';
import type { FromApart, ToApart, WorkName } from './apart-messages.js';
import { filesOfModel } from './inputs.js';

const CHILD = fileURLToPath(new URL('./apart-child.js', import.meta.url));

/** Whether this is the built library: its sources, and bundles of it, have no file to start. */
const canBeApart = existsSync(CHILD);

/** Whether a model is run in a process of its own. */
export function runsApart(path: string): boolean {
  return canBeApart && filesOfModel(path).length > 1;
}

export interface Apart {
  readonly work: WorkName;
  /** Models, and what else comes before the options. */
  readonly paths: readonly string[];
  readonly options: WorkOptions & { readonly onNote?: ((text: string) => void) | undefined };
  /** The name of the work in messages: `the check of out.onnx`. */
  readonly label: string;
  /** Called when the process was ended: what to do. */
  readonly advice: () => string;
  /** Whether the work is ended at once when the signal aborts, or asked to stop, which leaves it time. */
  readonly stop: 'kill' | 'ask';
}

/** Does the work in another process, and gives or throws what it gives or throws there. */
export async function apart<T>({ options: all, ...how }: Apart): Promise<T> {
  const { signal, onProgress, onNote, ...options } = all;
  if (signal?.aborted) throw aborted(how.label);
  const sizes = sizesOf(how.paths[0]!);
  // Of Node's own options only limits of memory are for the other process, not code to run first.
  const child = fork(CHILD, [], {
    execArgv: process.execArgv.filter((word) => word.startsWith('--max-')),
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const stop = () => (how.stop === 'kill' ? child.kill('SIGKILL') : ask(child));
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await new Promise((resolve, reject) => {
      child.on('message', (message: FromApart) => {
        if (message.kind === 'progress') onProgress?.(message.progress);
        else if (message.kind === 'note') onNote?.(message.text);
        else if (message.kind === 'done') resolve(message.result as T);
        else if (message.kind === 'broken') reject(message.error);
        else reject(new OnnxLoraError(message.code, message.message, message));
      });
      child.on('error', reject);
      child.on('exit', (code, by) => {
        const isOurs = by === 'SIGKILL' && signal?.aborted;
        reject(isOurs ? aborted(how.label) : ended(how, sizes, code, by));
      });
      const { work, paths } = how;
      const task: ToApart = { kind: 'start', work, paths, options: plain(options) };
      child.send(task, (error) => error && reject(error));
    });
  } finally {
    signal?.removeEventListener('abort', stop);
    child.kill('SIGKILL');
  }
}

function ask(child: ChildProcess): void {
  child.send({ kind: 'stop' } satisfies ToApart, () => {});
}

/** Options without functions, which no other process can call. */
function plain(options: object): object {
  const entries = Object.entries(options).filter(([, value]) => typeof value !== 'function');
  return Object.fromEntries(entries);
}

function aborted(label: string): OnnxLoraError {
  return new OnnxLoraError('aborted', `interrupted: ${label}`);
}

type How = Pick<Apart, 'label' | 'advice'>;

function ended(
  { label, advice }: How,
  sizes: ReadonlyMap<string, number>,
  code: number | null,
  by: NodeJS.Signals | null,
): Error {
  if (by === null) return new Error(`${label} ended with ${code}`);
  if (by !== 'SIGBUS' && by !== 'SIGSEGV') {
    const hint = `Is there memory enough for the model? ${advice()}`;
    return new OnnxLoraError('runtime', `the system ended ${label} (${by})`, { hint });
  }
  const changed = [...sizes].find(([file, size]) => sizeOf(file) !== size)?.[0] ?? 'a data file';
  return new OnnxLoraError('io', `${changed} changed meanwhile, which ended ${label} (${by})`, {
    hint: `Let nothing write to the files of the model meanwhile. ${advice()}`,
  });
}

function sizesOf(path: string): Map<string, number> {
  return new Map(filesOfModel(path).map((file) => [file, sizeOf(file)]));
}

/** -1 for a file that is not there. */
function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? -1;
}
