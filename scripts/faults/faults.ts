/**
 * What happens to commands: kills at any moment, disks that are full, read-only or broken, and others that
 * want the same output. Counted is what must not be: files of which a part is old and a part is new, runs
 * that end in other numbers, and errors that are not told in a line.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ended, killed, run, start, temporaryIn } from './command.js';
import { markedModel, markOf, trainingFiles } from './models.js';

export interface Counts {
  kills: number;
  /** Models beside data of another. */
  torn: number;
  /** What dead runs left and the next one did not remove. */
  leftovers: number;
  resumed: number;
  /** Resumed runs whose model is that of an unbroken one, in every byte. */
  resumedEqual: number;
  fullDisks: number;
  readOnly: number;
  /** Reads or writes that failed with EIO. */
  broken: number;
  concurrent: number;
  /** What went wrong, in words. */
  readonly bad: string[];
}

export interface FaultOptions {
  readonly seed: number;
  readonly seconds: number;
}

type Fault = (folder: string, random: () => number, counts: Counts) => Promise<void>;

/** Runs faults in turn until the time is over; each kind at least once. */
export async function faults({ seed, seconds }: FaultOptions): Promise<Counts> {
  const counts: Counts = {
    ...{ kills: 0, torn: 0, leftovers: 0, resumed: 0, resumedEqual: 0 },
    ...{ fullDisks: 0, readOnly: 0, broken: 0, concurrent: 0, bad: [] },
  };
  const random = generator(seed);
  const end = performance.now() + 1000 * seconds;
  const disks = [fullDisk, readOnlyDisk, brokenDisk];
  const kinds: readonly Fault[] = [killedPairs, ...disks, twoRuns, killedRun];
  for (let turn = 0; turn < kinds.length || performance.now() < end; turn++) {
    const folder = mkdtempSync(join(tmpdir(), 'onnx-lora-faults-'));
    try {
      await kinds[turn % kinds.length]!(folder, random, counts);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  return counts;
}

/** A model with its data at `output`, made of the first of two bases; `patch` replaces both files. */
async function pairIn(folder: string, counts: Counts) {
  const [output, out] = [join(folder, 'out', 'model.onnx'), join(folder, 'out')];
  const bases = [1, 2].map((mark) => join(folder, String(mark), 'model.onnx'));
  for (const path of [out, ...bases.map((base) => join(base, '..'))]) mkdirSync(path);
  bases.forEach((base, i) => {
    markedModel(base, i + 1);
  });
  const patch = (base: string) => ['patch', base, '--rank', '4', '-o', output, '--force'];
  expectCode(await run(patch(bases[0]!)), 0, counts);
  return { output, out, bases, patch };
}

/** A model and its data are replaced, and the command is killed on the way. */
async function killedPairs(folder: string, random: () => number, counts: Counts): Promise<void> {
  const { output, out, bases, patch } = await pairIn(folder, counts);
  for (let i = 1; i <= 3; i++) {
    await killed(patch(bases[i % 2]!), random() * 40, out);
    counts.kills++;
    if (markOf(output) === undefined) counts.torn++;
  }
  expectCode(await run(patch(bases[0]!)), 0, counts);
  if (markOf(output) !== 1) counts.torn++;
  counts.leftovers += temporaryIn(out).length;
}

/** A run of training is killed again and again, and resumed. */
async function killedRun(folder: string, random: () => number, counts: Counts): Promise<void> {
  const train = await trainingIn(folder);
  const [whole, broken] = [join(folder, 'whole.onnx'), join(folder, 'broken.onnx')];
  const began = performance.now();
  expectCode(await run(train(whole)), 0, counts);
  const time = performance.now() - began;
  const resume = [...train(broken), '--checkpoint', `${broken}.ck`, '--checkpoint-every', '1'];
  const log = ['--log', `${broken}.jsonl`, '--resume', '--force'];
  for (let i = 0; i < 2; i++) {
    await killed([...resume, ...log], (0.4 + 0.6 * random()) * time);
    counts.kills++;
  }
  expectCode(await run([...resume, ...log]), 0, counts);
  counts.resumed++;
  if (readFileSync(broken).equals(readFileSync(whole))) counts.resumedEqual++;
  counts.leftovers += temporaryIn(folder).length;
}

async function trainingIn(folder: string) {
  const [base, model, data] = ['base.onnx', 'model.onnx', 'data.safetensors'].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  await trainingFiles(base, data);
  await run(['patch', base, '--rank', '4', '--blocks', '2', '-o', model]);
  const how = ['--loss', 'mse', '--steps', '60', '--provider', 'cpu', '--threads', '1'];
  return (output: string) => ['train', model, '--data', data, ...how, '-o', output];
}

async function fullDisk(folder: string, random: () => number, counts: Counts): Promise<void> {
  const size = `size=${4 + Math.floor(8000 * random())}k`;
  await onDisk(folder, size, 'ENOSPC', counts, () => counts.fullDisks++);
}

async function readOnlyDisk(folder: string, _: () => number, counts: Counts): Promise<void> {
  await onDisk(folder, 'ro,size=64k', 'EROFS', counts, () => counts.readOnly++);
}

/** The output goes to a small disk, where this process may make one. */
async function onDisk(
  folder: string,
  options: string,
  code: string,
  counts: Counts,
  count: () => void,
): Promise<void> {
  const disk = join(folder, 'disk');
  mkdirSync(disk);
  markedModel(join(folder, 'model.onnx'), 1);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', disk], { stdio: 'pipe' });
  } catch {
    return;
  }
  try {
    const output = join(disk, 'model.onnx');
    const { stderr, ...rest } = await run(['patch', join(folder, 'model.onnx'), '-o', output]);
    expectCode({ ...rest, stderr }, 1, counts);
    if (!stderr.includes(`(${code})`)) counts.bad.push(stderr);
    counts.leftovers += readdirSync(disk).length;
    count();
  } finally {
    execFileSync('umount', [disk]);
  }
}

/** A model and its data are replaced, and the disk gives up on the way. */
async function brokenDisk(folder: string, random: () => number, counts: Counts): Promise<void> {
  const { output, out, bases, patch } = await pairIn(folder, counts);
  for (const kind of ['write', 'read']) {
    const ended = await run(patch(bases[1]!), `${kind} ${1 + Math.floor(24 * random())}`);
    // A short run may be over before.
    if (ended.code === 0) continue;
    expectCode(ended, 1, counts);
    if (!ended.stderr.includes('(EIO)')) counts.bad.push(ended.stderr);
    if (markOf(output) === undefined) counts.torn++;
    counts.leftovers += temporaryIn(out).length;
    counts.broken++;
  }
}

/** Two runs want one output: one gets it, and the other is told before it has worked. */
async function twoRuns(folder: string, random: () => number, counts: Counts): Promise<void> {
  const train = await trainingIn(folder);
  const output = join(folder, 'out.onnx');
  const first = start(train(output));
  const firstEnd = ended(first);
  await new Promise((resolve) => setTimeout(resolve, random() * 300));
  const both = await Promise.all([firstEnd, run(train(output))]);
  counts.concurrent++;
  const codes = both.map(({ code }) => code).sort();
  if (codes.join() !== '0,1') counts.bad.push(`two runs ended with ${codes}`);
  counts.leftovers += temporaryIn(folder).length;
}

function expectCode(
  { code, stderr }: { code: number | null; stderr: string },
  wanted: number,
  counts: Counts,
): void {
  const isTold = wanted === 0 || /^error: .*\n( {2}.*\n)*$/.test(stderr);
  if (code === wanted && isTold) return;
  counts.bad.push(`expected the exit status ${wanted}, found ${code}: ${stderr}`);
}

/** mulberry32 */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
