/**
 * `npm run fuzz`: damaged inputs for everything that reads files. Each input must be read, or refused with
 * an OnnxLoraError, within 10 s and 1 GB; anything else is a bad end, whose input is kept with the command
 * that makes it again. Exit status 1 where there was one.
 *
 *   npm run fuzz -- [--seconds 60] [--cases N] [--seed 0] [--reader NAME]... [--case I] [--failures DIR]
 *   npm run fuzz -- --reader NAME --replay FOLDER
 *
 * --seconds are shared by the readers; --cases instead runs so many of each; --case runs that one.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Case } from './case.js';
import { CaseProcess } from './process.js';
import { type ReaderName, readers } from './readers/index.js';
import { type BadEnd, Tally, table } from './tally.js';

const { values: args } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    cases: { type: 'string' },
    case: { type: 'string' },
    seed: { type: 'string', default: '0' },
    reader: { type: 'string', multiple: true },
    replay: { type: 'string' },
    failures: { type: 'string', default: join(tmpdir(), 'onnx-lora-fuzz') },
  },
});

const seed = Number(args.seed);
const failures = resolve(args.failures);
// Outputs are synced to where they are written: in memory that takes no time.
const MEMORY = '/dev/shm';
const work = mkdtempSync(join(existsSync(MEMORY) ? MEMORY : tmpdir(), 'onnx-lora-fuzz-'));
const cases = new CaseProcess(work);

/** A reader gets this long before it is another's turn: what is learned early is about all of them. */
const TURN_SECONDS = 5;

function chosenReaders(): readonly ReaderName[] {
  const known = Object.keys(readers) as ReaderName[];
  const names = args.reader ?? known;
  const unknown = names.find((name) => !known.some((one) => one === name));
  if (unknown === undefined) return known.filter((name) => names.includes(name));
  throw new Error(`no reader ${unknown}, there are: ${known.join(', ')}`);
}

async function runCase(tally: Tally, number: number): Promise<void> {
  const one = { reader: tally.reader, seed, number };
  const ending = await cases.run(one);
  if (!tally.add(one, ending)) return;
  const folder = keep(one);
  console.log(`\n${one.reader}, case ${number}: ${ending.problem}`);
  console.log(`  its input: ${folder}`);
  console.log(`  again: ${commandOf(one)}\n`);
}

/** The input of a case, and what reading it has left. */
function keep({ reader, seed, number }: Case): string {
  const folder = join(failures, `${reader}-${seed}-${number}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(failures, { recursive: true });
  cpSync(join(work, 'case'), folder, { recursive: true });
  return folder;
}

function commandOf({ reader, seed, number }: Case): string {
  return `npm run fuzz -- --reader ${reader} --seed ${seed} --case ${number}`;
}

/** In turns, so that a run cut short has seen every reader. */
async function runFor(tallies: readonly Tally[], seconds: number): Promise<void> {
  const each = Math.min(TURN_SECONDS, seconds / tallies.length);
  const end = performance.now() + 1000 * seconds;
  for (let turn = 0; turn < tallies.length || performance.now() < end; turn++) {
    const tally = tallies[turn % tallies.length]!;
    // Its seeds are made before the clock runs.
    await runCase(tally, tally.cases);
    const turnEnd = performance.now() + 1000 * each;
    while (performance.now() < turnEnd) await runCase(tally, tally.cases);
  }
}

async function runAll(): Promise<readonly Tally[]> {
  const tallies = chosenReaders().map((name) => new Tally(name));
  if (args.case !== undefined) {
    for (const tally of tallies) await runCase(tally, Number(args.case));
  } else if (args.cases !== undefined) {
    for (const tally of tallies) {
      while (tally.cases < Number(args.cases)) await runCase(tally, tally.cases);
    }
  } else {
    await runFor(tallies, Number(args.seconds));
  }
  return tallies;
}

function summary(bad: readonly BadEnd[]): string {
  const lines = bad.map(
    ({ problem, first, count }) => `${count} x ${problem.split('\n')[0]}\n    ${commandOf(first)}`,
  );
  return `\nbad ends, each kind once:\n${lines.join('\n')}`;
}

try {
  if (args.replay === undefined) {
    const tallies = await runAll();
    console.log(table(tallies));
    const bad = tallies.flatMap((tally) => [...tally.bad.values()]);
    if (bad.length > 0) console.log(summary(bad));
    process.exitCode = bad.length > 0 ? 1 : 0;
  } else {
    const input = join(work, 'case');
    cpSync(args.replay, input, { recursive: true });
    const { outcome, problem = '' } = await cases.replay(chosenReaders()[0]!, input);
    console.log(`${outcome} ${problem}`);
    process.exitCode = outcome === 'bad' ? 1 : 0;
  }
} finally {
  cases.close();
  rmSync(work, { recursive: true, force: true });
}
