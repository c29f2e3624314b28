/** Runs cases in a process of its own, which may crash, hang, or take all memory. */
import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Case, Ending } from './case.js';
import type { Reply, Request } from './child.js';
import type { ReaderName } from './readers/index.js';

/** More processor time for one input is a bad end. */
export const MAX_SECONDS = 10;

/** Without using the processor: something that will never come is waited for. */
const MAX_WAIT_SECONDS = 120;

/** More memory for one input is a bad end. */
export const MAX_BYTES = 2 ** 30;

/** What is left over of many cases must not count for the next. */
const FRESH_BYTES = 0.6 * MAX_BYTES;

const WATCH_MS = 200;

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const hooks = path('../test/support/typescript-hooks.mjs');

/** Takes one request at a time. */
export class CaseProcess {
  private child: ChildProcess | undefined;
  private prepared = new Set<ReaderName>();

  /** @param folder where the process writes its inputs */
  constructor(private readonly folder: string) {}

  /** How a case ends; a bad end may be that of the process. */
  async run(one: Case): Promise<Ending> {
    await this.prepare(one.reader);
    return this.ending({ kind: 'run', one });
  }

  /** Reads the input in a folder. */
  async replay(reader: ReaderName, folder: string): Promise<Ending> {
    return this.ending({ kind: 'replay', reader, folder });
  }

  close(): void {
    this.child?.kill('SIGKILL');
    this.child = undefined;
    this.prepared.clear();
  }

  private async prepare(reader: ReaderName): Promise<void> {
    if (this.child && this.prepared.has(reader)) return;
    const reply = await this.ask({ kind: 'prepare', reader }, () => undefined);
    if (typeof reply === 'string')
      throw new Error(`the seeds of ${reader} cannot be made: ${reply}`);
    this.prepared.add(reader);
  }

  private async ending(request: Request): Promise<Ending> {
    const watch = new Watch();
    const reply = await this.ask(request, (pid) => watch.excess(pid));
    if (typeof reply === 'string') {
      this.close();
      return { outcome: 'bad', problem: reply, seconds: watch.seconds, peak: watch.peak };
    }
    const { kind: _, ...ending } = reply as Extract<Reply, { kind: 'ended' }>;
    if (ending.peak > FRESH_BYTES) this.close();
    if (ending.peak > MAX_BYTES)
      return { ...ending, outcome: 'bad', problem: tooMuch(ending.peak) };
    if (ending.seconds > MAX_SECONDS) {
      return { ...ending, outcome: 'bad', problem: tooLong(ending.seconds) };
    }
    return ending;
  }

  /** The reply, or how the process ended instead; `excess` says why it has to be ended. */
  private ask(
    request: Request,
    excess: (pid: number) => string | undefined,
  ): Promise<Reply | string> {
    const child = this.started();
    let reason: string | undefined;
    const timer = setInterval(() => {
      reason = excess(child.pid!);
      if (reason !== undefined) child.kill('SIGKILL');
    }, WATCH_MS);
    return new Promise<Reply | string>((resolve, reject) => {
      const exited = (code: number | null, signal: string | null) => {
        this.child = undefined;
        this.prepared.clear();
        resolve(reason ?? `the process ended: ${signal ?? `exit status ${code}`}`);
      };
      child.once('exit', exited);
      child.once('message', (reply) => {
        child.off('exit', exited);
        const { kind, ...rest } = reply as Reply;
        if (kind !== 'failed') resolve(reply as Reply);
        else reject(new Error(`no input could be made: ${(rest as { error: string }).error}`));
      });
      child.send(request);
    }).finally(() => clearInterval(timer));
  }

  private started(): ChildProcess {
    this.child ??= fork(path('child.ts'), [this.folder], {
      execArgv: [`--import=${hooks}`, `--max-old-space-size=${MAX_BYTES / 2 ** 20}`],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      serialization: 'advanced',
    });
    return this.child;
  }
}

/** What a process uses for one request; on systems without /proc, time by the clock only. */
class Watch {
  seconds = 0;
  peak = 0;
  private readonly start = performance.now();
  private first: number | undefined;

  excess(pid: number): string | undefined {
    const { cpu, bytes } = usage(pid);
    this.first ??= cpu;
    this.seconds = (cpu ?? 0) - (this.first ?? 0);
    this.peak = Math.max(this.peak, bytes);
    if (bytes > MAX_BYTES) return tooMuch(bytes);
    if (this.seconds > MAX_SECONDS) return tooLong(this.seconds);
    const waited = (performance.now() - this.start) / 1000;
    const limit = cpu === undefined ? MAX_SECONDS : MAX_WAIT_SECONDS;
    return waited > limit ? tooLong(waited) : undefined;
  }
}

const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;

function usage(pid: number): { cpu: number | undefined; bytes: number } {
  try {
    // The name of the program stands in parentheses and may have spaces.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    const [user, system, pages] = [11, 12, 21].map((at) => Number(fields[at]));
    return { cpu: (user! + system!) / TICKS_PER_SECOND, bytes: pages! * PAGE_BYTES };
  } catch {
    return { cpu: undefined, bytes: 0 };
  }
}

function tooMuch(bytes: number): string {
  return `it takes more than ${MAX_BYTES / 2 ** 20} MB of memory (${Math.round(bytes / 2 ** 20)})`;
}

function tooLong(seconds: number): string {
  return `it takes longer than ${MAX_SECONDS} s (${seconds.toFixed(1)})`;
}
