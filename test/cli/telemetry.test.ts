/** ONNX Runtime's telemetry stays off: it leaves no file, and looks up no host. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { patch } from '../../src/commands/patch.js';
import { temporaryFolder } from '../support/files.js';
import { type TinyRun, tinyModel, tinyRun } from '../training/tiny.js';

const files = temporaryFolder();
const dist = new URL('../../dist/', import.meta.url);
const cli = fileURLToPath(new URL('cli/main.js', dist));
const library = new URL('src/index.js', dist).href;

/** What a program leaves in a home and a temporary folder that are new. */
async function leftBy(args: readonly string[], tracer: readonly string[] = []): Promise<string[]> {
  const root = files.fresh('root');
  const [home, temporary] = [join(root, 'home'), join(root, 'tmp')];
  for (const path of [home, temporary]) mkdirSync(path, { recursive: true });
  const env = { PATH: process.env.PATH, HOME: home, TMPDIR: temporary };
  const [program, ...rest] = [...tracer, process.execPath, ...args];
  const child = spawn(program!, rest, { env, stdio: ['ignore', 'ignore', 'inherit'] });
  expect(await once(child, 'exit')).toEqual([0, null]);
  return readdirSync(root, { recursive: true }).map(String).sort();
}

function train({ model, data }: TinyRun, ...more: string[]): string[] {
  return [cli, 'train', model, '--data', data, '--loss', 'mse', '--quiet', ...more];
}

/** A program with an AdapterSession that is open for a while. */
async function session(ms: number, inThread = false): Promise<string[]> {
  const [base, model] = [files.write(tinyModel()), files.fresh()];
  await patch(base, { slots: 'required', output: model });
  const text = `
    import { AdapterSession } from ${JSON.stringify(library)};
    const session = await AdapterSession.open(${JSON.stringify(model)});
    setTimeout(() => session.release(), ${ms});`;
  const program = files.write(Buffer.from(text), 'session.mjs');
  if (!inThread) return [program];
  const starter = `new (require('node:worker_threads').Worker)(${JSON.stringify(program)});`;
  return ['-e', starter];
}

describe('an empty home and temporary folder stay empty', () => {
  it.each<[string, () => Promise<string[]>]>([
    ['with train', async () => train(await tinyRun(files), '--steps', '2')],
    ['with merge', async () => [cli, 'merge', (await tinyRun(files)).model, '--quiet']],
    ['with the providers that are tried out in processes', async () => [cli, 'providers']],
    ['with AdapterSession', () => session(0)],
    ['with AdapterSession in a thread, whose environment is a copy', () => session(0, true)],
  ])('%s', async (_, program) => {
    expect(await leftBy(await program())).toEqual(['home', 'tmp']);
  });
});

describe('nothing is looked up, and no socket opened', () => {
  // The first look-up came nine seconds behind the first session.
  const LONG_MS = 11_000;

  it('by a session that stays open', async (context) => {
    if (spawnSync('strace', ['-V']).error) {
      context.skip('strace, which sees the calls for sockets, is not installed');
    }
    const path = files.fresh('trace');
    const tracer = ['strace', '-f', '-qq', '-e', 'trace=socket,connect,sendto,sendmsg', '-o', path];
    expect(await leftBy(await session(LONG_MS), tracer)).toEqual(['home', 'tmp']);
    expect(readFileSync(path, 'utf8')).not.toMatch(/AF_INET|nscd|sin_port/);
  });
});
