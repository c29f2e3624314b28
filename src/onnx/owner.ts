/**
 * Whose a temporary file or claim is: names carry the process that made them, so that what a killed one
 * left can be distinguished from what a living one works on.
 */
import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** Pattern of the results of {@link ownerToken}. */
export const OWNER = '[0-9a-f]{8}-\\d+-[0-9a-f]{8}';

/** This process, in a few characters that are allowed in a file's name. */
export function ownerToken(pid = process.pid): string {
  return `${machine()}-${pid}-${startOf(pid) ?? UNKNOWN}`;
}

/** Whether an owner is known to live no more; one of another machine never is. */
export function isDead(token: string): boolean {
  const [where, id, start] = token.split('-') as [string, string, string];
  if (where !== machine()) return false;
  const pid = Number(id);
  if (!isRunning(pid)) return true;
  const now = startOf(pid);
  // Another process has its number by now.
  return start !== UNKNOWN && now !== undefined && now !== start;
}

/** Whether an owner is a process of this machine, that {@link isDead} can check. */
export function isOfThisMachine(token: string): boolean {
  return token.startsWith(`${machine()}-`);
}

const UNKNOWN = '00000000';

let known: string | undefined;

/** Numbers of processes count within a host, and within what it shows to containers. */
function machine(): string {
  known ??= digest(`${hostname()} ${attempt(() => readlinkSync('/proc/self/ns/pid')) ?? ''}`);
  return known;
}

/** The start time of a process, where the system tells it. */
function startOf(pid: number): string | undefined {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  const boot = attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'));
  // Its name, in parentheses, may hold anything; the start is the twentieth field after it.
  const ticks = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  return ticks === undefined ? undefined : digest(`${boot} ${ticks}`);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // One of another user may not be asked, but is there.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
