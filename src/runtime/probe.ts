/**
 * Tries a provider in a process of its own: a broken one may crash, print to stderr from native
 * code, or never come back.
 */
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { stripVTControlCharacters } from 'node:util';
import { plainMessage } from './ort-error.js';
import { executionProviders, type ProviderName } from './provider-names.js';
import { withoutTelemetry } from './telemetry.js';

/** The model to run: one float32 input `x`, filled with ones, and an output `y`. */
export interface Trial {
  readonly model: Uint8Array;
  readonly dims: readonly number[];
  /** The time to spend on runs after the first one. */
  readonly budgetMs: number;
}

export type TrialResult =
  | { readonly ok: true; readonly y: readonly number[] /** Fastest run. */; readonly ms: number }
  | { readonly ok: false; readonly reason: string };

// The first CUDA session of a machine loads a gigabyte of libraries.
const TIMEOUT_MS = 60_000;

const MAX_STDERR = 64 * 1024;

// Source text, because neither a TypeScript source nor a bundle has a file to start. Falling back to
// the CPU is forbidden: only what the provider itself runs counts.
const CHILD = `
const { runtime, model, dims, budgetMs, executionProviders } = JSON.parse(process.argv[1]);
const answer = (result) => process.send(result, () => process.exit(0));
(async () => {
  const ort = require(runtime);
  ort.env.logLevel = 'error';
  const session = await ort.InferenceSession.create(Buffer.from(model, 'base64'), {
    executionProviders,
    logSeverityLevel: 3,
    extra: executionProviders[0] === 'cpu' ? {} : { 'session.disable_cpu_ep_fallback': '1' },
  });
  const size = dims.reduce((product, dim) => product * dim, 1);
  const feeds = { x: new ort.Tensor('float32', new Float32Array(size).fill(1), dims) };
  const { y } = await session.run(feeds);
  let ms = Infinity;
  for (let left = budgetMs; left > 0; ) {
    const start = performance.now();
    await session.run(feeds);
    const elapsed = performance.now() - start;
    ms = Math.min(ms, elapsed);
    left -= elapsed;
  }
  answer({ ok: true, y: [...y.data], ms: Number.isFinite(ms) ? ms : 0 });
})().catch((error) => answer({ ok: false, reason: String(error && error.message || error) }));
`;

/** Runs the trial on the provider; whatever happens there is the result. */
export async function tryProvider(provider: ProviderName, trial: Trial): Promise<TrialResult> {
  await withoutTelemetry();
  const request = {
    ...trial,
    runtime: createRequire(import.meta.url).resolve('onnxruntime-node'),
    model: Buffer.from(trial.model).toString('base64'),
    executionProviders: executionProviders(provider),
  };
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['-e', CHILD, JSON.stringify(request)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
      windowsHide: true,
    });
    let answer: TrialResult | undefined;
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < MAX_STDERR) stderr += text;
    });
    child.on('message', (message) => {
      answer = message as TrialResult;
    });
    child.on('error', (error) => resolve({ ok: false, reason: error.message }));
    child.on('close', (code, signal) => {
      if (answer?.ok) resolve(answer);
      else resolve({ ok: false, reason: reasonOf(answer?.reason ?? ending(code, signal), stderr) });
    });
  });
}

function ending(code: number | null, signal: string | null): string {
  if (signal === 'SIGKILL') return `gave no answer within ${TIMEOUT_MS / 1000} s`;
  return `crashed (${signal ?? `exit code ${code}`})`;
}

/** The error, and the first line that native code printed: it names the missing library. */
function reasonOf(thrown: string, stderr: string): string {
  const [printed] = stderr.split('\n').map(printedMessage).filter(Boolean);
  const message = plainMessage(thrown);
  return printed && !message.includes(printed) ? `${message} (${printed})` : message;
}

const LOG_HEADER = /^\S+ \S+ \[\w:[^\]]*\] /;
const FOLDER = /(?:\/|\b[A-Za-z]:\\)[^\s:]*[\\/]/g;

function printedMessage(line: string): string {
  return plainMessage(stripVTControlCharacters(line).replace(LOG_HEADER, ''))
    .replace(FOLDER, '')
    .replace(/^Warning: |^Failed to load library \S+ with error: /, '');
}
