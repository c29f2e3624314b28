/** One case: an input made of a seed and a number, and how reading it ended. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { OnnxLoraError } from '../src/errors.js';
import { Random } from './random.js';
import type { Files, Reader } from './reader.js';
import type { ReaderName } from './readers/index.js';

/** Which input: the same for the same seed, reader and number. */
export interface Case {
  readonly reader: ReaderName;
  readonly seed: number;
  readonly number: number;
}

/** `bad` is what must not be: an error that is none of ours, a crash, too much time or memory. */
export type Outcome = 'ok' | 'refused' | 'bad';

export interface Ending {
  readonly outcome: Outcome;
  /** Of a bad end: what happened, its first line telling it from others. */
  readonly problem?: string;
  /** Processor time. */
  readonly seconds: number;
  /** The most memory that the process ever had, in bytes. */
  readonly peak: number;
}

/** Errors that come outside of any promise that a reader gives. */
export class Strays {
  private errors: unknown[] = [];

  constructor() {
    for (const event of ['unhandledRejection', 'uncaughtException'] as const) {
      process.on(event, (error: unknown) => this.errors.push(error));
    }
  }

  /** Those since the last time. */
  async taken(): Promise<readonly unknown[]> {
    // Node tells of rejections when all that waits has had its turn.
    for (let i = 0; i < 2; i++) await setImmediate();
    const taken = this.errors;
    this.errors = [];
    return taken;
  }
}

/** The damaged input of a case. */
export function inputOf(reader: Reader, seeds: readonly Files[], one: Case): Files {
  const random = new Random(one.seed, one.reader, one.number);
  return reader.mutate(random.pick(seeds), random);
}

/** Writes files into a new folder in the place of an old one. */
export function writeInput(files: Files, folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of files) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
  }
}

/** Reads the input that is in a folder. */
export async function runCase(reader: Reader, folder: string, strays: Strays): Promise<Ending> {
  const start = process.cpuUsage();
  let thrown: unknown;
  try {
    await reader.run(folder);
  } catch (error) {
    thrown = error ?? new Error('nothing was thrown, as an error');
  }
  const [stray] = await strays.taken();
  const { user, system } = process.cpuUsage(start);
  const ending = { seconds: (user + system) / 1e6, peak: 1024 * process.resourceUsage().maxRSS };
  if (stray !== undefined) {
    return { ...ending, outcome: 'bad', problem: `nobody awaits: ${textOf(stray)}` };
  }
  if (thrown === undefined) return { ...ending, outcome: 'ok' };
  if (isRefusal(thrown)) return { ...ending, outcome: 'refused' };
  return { ...ending, outcome: 'bad', problem: textOf(thrown) };
}

/** An error in the user's terms, in one line. */
function isRefusal(error: unknown): boolean {
  return error instanceof OnnxLoraError && !error.message.includes('\n');
}

// An error of ours with a line break in it, or a stack of thousands of frames.
const MAX_PROBLEM = 2000;

function textOf(error: unknown): string {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return text.slice(0, MAX_PROBLEM);
}
