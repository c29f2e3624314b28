/** Runs a training process and watches it from outside, the same way for every side of a bench. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';

const POLL_MS = 10;
const WATCH_MS = 1000;

/**
 * @typedef {object} LoggedRun
 * @property {number} firstStepMs from the start of the process to the first line of its log
 * @property {number} peakBytes most memory the process ever had resident
 * @property {Record<string, any>[]} steps the lines of the log that are steps
 * @property {Record<string, any>} result what the process printed, as JSON
 */

/**
 * Memory is read from /proc: Linux only.
 * @param {string} command @param {string[]} args @param {string} log the JSONL file that it writes
 * @param {(pid: number) => void} [watch] called every WATCH_MS while it runs
 * @returns {Promise<LoggedRun>}
 */
export function runLogged(command, args, log, watch) {
  rmSync(log, { force: true });
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [output, messages] = ['', ''];
    let firstStepMs;
    let peakBytes = 0;
    const poll = setInterval(() => {
      peakBytes = Math.max(peakBytes, highWaterMark(child.pid));
      if (firstStepMs === undefined && existsSync(log) && readFileSync(log, 'utf8').includes('\n'))
        firstStepMs = performance.now() - started;
    }, POLL_MS);
    const watching = watch && setInterval(() => watch(child.pid), WATCH_MS);
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (messages += data));
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(poll);
      clearInterval(watching);
      if (code !== 0) return reject(new Error(`${command} ended with ${code}:\n${messages}`));
      const lines = readFileSync(log, 'utf8').trim().split('\n').map(JSON.parse);
      const steps = lines.filter(({ loss }) => loss !== undefined);
      resolve({ firstStepMs, peakBytes, steps, result: JSON.parse(output) });
    });
  });
}

/** 0 once the process has ended. @param {number} pid */
function highWaterMark(pid) {
  const status = `/proc/${pid}/status`;
  try {
    return 1024 * Number(/VmHWM:\s*(\d+)/.exec(readFileSync(status, 'utf8'))?.[1] ?? 0);
  } catch (error) {
    // The process may end between two polls.
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return 0;
    throw error;
  }
}
