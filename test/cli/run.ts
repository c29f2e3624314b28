import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
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

/** Runs the built command line to its end. */
export function run(cwd: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return finished(start(cwd, args, { env: { ...process.env, ...env } }));
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
