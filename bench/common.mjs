/** What the benches share: statistics, tables, results, temporary folders, sessions. */
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ort from 'onnxruntime-node';

/** @param {number[]} values @param {number} p */
function quantile(values, p) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * p;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.ceil(at)] - sorted[low]) * (at - low);
}

/** @param {number[]} values */
export const median = (values) => quantile(values, 0.5);

/** Median and quartiles. @param {number[]} values */
export function spread(values) {
  return { median: median(values), p25: quantile(values, 0.25), p75: quantile(values, 0.75) };
}

/**
 * Ratios of two series, run by run: what slows the machine down for a while slows both runs of a
 * round, so it leaves their ratio alone.
 * @param {number[]} values @param {number[]} reference
 */
export const pairedRatio = (values, reference) => spread(values.map((v, i) => v / reference[i]));

/** @param {{ median: number, p25: number, p75: number }} s @param {number} digits */
export const withSpread = (s, digits = 2) =>
  `${s.median.toFixed(digits)} (${s.p25.toFixed(digits)}–${s.p75.toFixed(digits)})`;

/** Rows of cells in columns; the first is flush left. @param {string[]} head @param {string[][]} rows */
export function table(head, rows) {
  const all = [head, ...rows];
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const line = (row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ');
  console.log([line(head), line(widths.map((w) => '-'.repeat(w))), ...rows.map(line)].join('\n'));
}

/** Writes bench/results/<name>.json. @param {string} name @param {object} results */
export function saveResults(name, results) {
  const folder = fileURLToPath(new URL('./results/', import.meta.url));
  mkdirSync(folder, { recursive: true });
  const machine = {
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
  };
  writeFileSync(
    join(folder, `${name}.json`),
    `${JSON.stringify({ machine, ...results }, null, 2)}\n`,
  );
  console.log(`\nwritten: bench/results/${name}.json`);
}

/**
 * A folder for the generated models, removed when `work` ends, Ctrl-C included.
 * @param {{ keep?: boolean, folder?: string, bytes: number }} options
 * @param {(folder: string) => Promise<void>} work
 */
export async function inTemporaryFolder({ keep = false, folder = tmpdir(), bytes }, work) {
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  if (free < bytes) {
    const gb = (n) => `${(n / 1e9).toFixed(1)} GB`;
    console.error(
      `${folder} has ${gb(free)} free, ${gb(bytes)} needed; name another with --folder`,
    );
    process.exitCode = 1;
    return;
  }
  const made = mkdtempSync(join(folder, 'onnx-lora-bench-'));
  const remove = () => rmSync(made, { recursive: true, force: true });
  const interrupt = () => {
    if (!keep) remove();
    process.exit(130);
  };
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  try {
    await work(made);
  } finally {
    if (keep) console.log(`kept: ${made}`);
    else remove();
  }
}

/**
 * A session that leaves the others alone: ONNX Runtime's threads go on spinning after a run, and
 * two sessions used in turn then disturb each other (measured: 50 ms alone, 78 ms in turn; without
 * spinning 51 and 54).
 * @param {string} path @param {'all' | 'basic' | 'disabled' | 'extended'} level @param {number} threads
 */
export function session(path, level, threads = 2) {
  return ort.InferenceSession.create(path, {
    graphOptimizationLevel: level,
    intraOpNumThreads: threads,
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  });
}

/**
 * Runs the sessions in turn, each round from another start, and gives the times of each by name:
 * of the clock, and of the processors (all threads), which other work on the machine hardly moves.
 * @param {Record<string, import('onnxruntime-node').InferenceSession>} sessions
 * @param {Record<string, import('onnxruntime-node').Tensor>} feeds
 * @param {number} rounds
 * @returns {Promise<Record<string, { wall: number[], cpu: number[] }>>} milliseconds
 */
export async function timeInTurn(sessions, feeds, rounds) {
  const names = Object.keys(sessions);
  const times = Object.fromEntries(names.map((name) => [name, { wall: [], cpu: [] }]));
  for (let round = -WARM_UP; round < rounds; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + Math.max(0, round)) % names.length];
      const cpu = process.cpuUsage();
      const start = performance.now();
      await sessions[name].run(feeds);
      const wall = performance.now() - start;
      const { user, system } = process.cpuUsage(cpu);
      if (round < 0) continue;
      times[name].wall.push(wall);
      times[name].cpu.push((user + system) / 1000);
    }
  }
  return times;
}

/**
 * The times of one session beside those of the base.
 * @param {{ wall: number[], cpu: number[] }} times @param {{ wall: number[], cpu: number[] }} base
 */
export function against(times, base) {
  return {
    ms: spread(times.wall),
    ratio: pairedRatio(times.wall, base.wall),
    cpuMs: spread(times.cpu),
    cpuRatio: pairedRatio(times.cpu, base.cpu),
  };
}

const WARM_UP = 2;

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export function largestDifference(a, b) {
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}
