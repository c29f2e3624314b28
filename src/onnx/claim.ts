/** Long work claims its output at the start, so that two runs do not find out at their ends. */
import {
  linkSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { isDead, isOfThisMachine, OWNER, ownerToken } from './owner.js';
import { fileError } from './source.js';
import { removeStale, shortName, temporaryBeside } from './temporary.js';

// Of another machine only the age of its claim is known: it is renewed as long as the run lives.
const RENEW_MS = 60_000;
const STALE_MS = 60 * RENEW_MS;

/** The claims of this thread. */
const held = new Set<string>();

function claimFile(path: string): string {
  return join(dirname(resolve(path)), `.${shortName(path)}.claim`);
}

/** A claim on a path, until it is released or its process ends. */
export class Claim {
  private readonly timer: NodeJS.Timeout;

  private constructor(private readonly file: string) {
    this.timer = setInterval(() => this.renew(), RENEW_MS).unref();
    held.add(file);
  }

  /**
   * Claims `path` for this process.
   * @throws OnnxLoraError `output-exists` where another run holds it, and those of writing
   */
  static take(path: string): Claim {
    const file = claimFile(path);
    const own = temporaryBeside(path);
    removeStale(path);
    try {
      writeFileSync(own, `${ownerToken()} ${process.pid} ${hostname()}\n`, { flag: 'wx' });
      takeOver(file, statSync(own).mtimeMs);
      place(own, file);
      return new Claim(file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw claimed(path, file);
      throw error instanceof OnnxLoraError ? error : fileError(path, error);
    } finally {
      rmSync(own, { force: true });
    }
  }

  /** As `take`; undefined where this thread holds a claim on the path already, as a run that writes its output. */
  static unlessHeld(path: string): Claim | undefined {
    return held.has(claimFile(path)) ? undefined : Claim.take(path);
  }

  release(): void {
    clearInterval(this.timer);
    held.delete(this.file);
    if (holderOf(this.file)?.token === ownerToken()) rmSync(this.file, { force: true });
  }

  private renew(): void {
    try {
      utimesSync(this.file, new Date(), new Date());
    } catch {
      // Removed by hand, or out of reach for a while: the run itself goes on.
    }
  }
}

/** The claim appears whole or not at all, and never in the place of another. */
function place(own: string, file: string): void {
  try {
    linkSync(own, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
    // A file system without links.
    writeFileSync(file, readFileSync(own), { flag: 'wx' });
  }
}

/** Takes away the claim of a process that is dead. */
function takeOver(file: string, now: number): void {
  const holder = holderOf(file);
  if (!holder || !isStale(file, holder.token, now)) return;
  const aside = temporaryBeside(file);
  renameSync(file, aside);
  // Somebody else may have taken it over between the two calls: theirs comes back.
  const moved = holderOf(aside);
  if (moved && moved.token !== holder.token) place(aside, file);
  rmSync(aside, { force: true });
}

function isStale(file: string, token: string, now: number): boolean {
  if (isOfThisMachine(token)) return isDead(token);
  return now - statSync(file).mtimeMs > STALE_MS;
}

interface Holder {
  readonly token: string;
  readonly pid: string;
  readonly host: string;
}

function holderOf(file: string): Holder | undefined {
  try {
    const [token = '', pid = '', host = ''] = readFileSync(file, 'utf8').trim().split(' ');
    return new RegExp(`^${OWNER}$`).test(token) ? { token, pid, host } : undefined;
  } catch {
    return undefined;
  }
}

function claimed(path: string, file: string): OnnxLoraError {
  const holder = holderOf(file);
  const who = holder ? `process ${holder.pid} on ${holder.host}` : 'another run';
  return new OnnxLoraError('output-exists', `${path} is being made by ${who}`, {
    hint: `Wait for it, or name another place with \`output\`. If that run has ended, remove ${file}.`,
  });
}
