/** Commands of the built command line, killed where chance has it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const brokenDisk = new URL('./broken-disk.mjs', import.meta.url).href;

export interface Ended {
  /** null where it was killed. */
  readonly code: number | null;
  readonly stderr: string;
}

/** @param disk what of it is broken; see broken-disk.mjs */
export function start(args: readonly string[], disk?: string): ChildProcess {
  const preload = disk === undefined ? [] : ['--import', brokenDisk];
  return spawn(process.execPath, [...preload, main, ...args, '--quiet'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, BROKEN_DISK: disk },
  });
}

export async function ended(child: ChildProcess): Promise<Ended> {
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stderr };
}

export function run(args: readonly string[], disk?: string): Promise<Ended> {
  return ended(start(args, disk));
}

/** Kills a command a while behind the moment at which it begins to write in `folder`, or to live. */
export async function killed(
  args: readonly string[],
  delay: number,
  folder?: string,
): Promise<Ended> {
  const child = start(args);
  const end = ended(child);
  if (folder !== undefined) await writing(child, folder);
  await sleep(delay);
  child.kill('SIGKILL');
  return end;
}

async function writing(child: ChildProcess, folder: string): Promise<void> {
  while (child.exitCode === null && temporaryIn(folder).length === 0) await sleep(1);
}

/** What no run may leave for good. */
export function temporaryIn(folder: string): string[] {
  return readdirSync(folder).filter((name) => /\.(tmp|claim)$/.test(name));
}
