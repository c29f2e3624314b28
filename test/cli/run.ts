import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished, vi } from 'vitest';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const program = new URL('../../dist/cli/program.js', import.meta.url).href;
const zoo = fileURLToPath(new URL('../fixtures/zoo/', import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts the built command line. */
export function start(cwd: string, args: readonly string[], options: SpawnOptions = {}) {
  return spawn(process.execPath, [main, ...args], { cwd, ...options });
}

/** How far a command is, which it says where a machine is slow. */
const PROGRESS = /^[a-z ]+: \d+%, .*\n/gm;

/** Everything that a started command says until it ends, but for how far it is. */
export async function finished(child: ChildProcess): Promise<Finished> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject).on('close', resolve);
  });
  return { code, stdout, stderr: stderr.replace(PROGRESS, '') };
}

/** Runs the built command line to its end, in a process of its own. */
export function runProcess(cwd: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return finished(start(cwd, args, { env: { ...process.env, ...env } }));
}

/** One after the other: they share the folder and the streams of this process. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Runs the built command line to its end in this process, which is a second less of work: for tests of what
 * commands say and write, not of signals, streams and the way that a process ends.
 */
export function run(cwd: string, args: readonly string[]): Promise<Finished> {
  const own = last.then(() => inThisProcess(cwd, args));
  last = own.catch(() => {});
  return own;
}

async function inThisProcess(cwd: string, args: readonly string[]): Promise<Finished> {
  const { runProgram } = (await import(program)) as typeof import('../../cli/program.js');
  const before = process.cwd();
  const [stdout, stderr] = [captured(process.stdout), captured(process.stderr)];
  process.chdir(cwd);
  try {
    const code = await runProgram(args, { signal: new AbortController().signal });
    return { code, stdout: stdout.text(), stderr: stderr.text().replace(PROGRESS, '') };
  } finally {
    process.chdir(before);
    stdout.restore();
    stderr.restore();
  }
}

/** Keeps what is written to a stream from here on, until it is restored. */
function captured(stream: NodeJS.WriteStream) {
  const written: string[] = [];
  const spy = vi.spyOn(stream, 'write').mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  return { text: () => written.join(''), restore: () => spy.mockRestore() };
}

/** A folder of the test's own, with files of the zoo in it: `{ 'model.onnx': 'vit-cls/model.onnx' }`. */
export function temporaryFolder(files: Readonly<Record<string, string>> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-lora-cli-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, from] of Object.entries(files)) copyFileSync(zooFile(from), join(folder, name));
  return folder;
}

export function zooFile(path: string): string {
  return join(zoo, path);
}

/** A folder with the zoo's small BERT classifier in it. */
export function folderWithModel(): string {
  return temporaryFolder({ 'model.onnx': 'bert-cls-torchscript/model.onnx' });
}
