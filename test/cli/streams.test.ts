import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type Finished, finished, folderWithModel, start, temporaryFolder } from './run.js';

describe('a reader that closes its end', () => {
  it.each([['--json'], ['--help']])('does no harm to inspect %s', async (option) => {
    const child = start(folderWithModel(), ['inspect', 'model.onnx', option]);
    child.stdout!.destroy();
    const { code, stderr } = await finished(child);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });
});

it.skipIf(!existsSync('/dev/full'))(
  'a full disk behind stdout is an error, in one line',
  async () => {
    const full = openSync('/dev/full', 'w');
    const options = { stdio: ['ignore', full, 'pipe'] as ['ignore', number, 'pipe'] };
    const { code, stderr } = await finished(
      start(folderWithModel(), ['inspect', 'model.onnx'], options),
    );
    closeSync(full);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: standard output: no space left on the device \(ENOSPC\)\n/);
  },
);

/**
 * Sends a signal to a patch while it copies external data. Where the machine was busy elsewhere, and the
 * patch done before the signal came: once more.
 */
async function interruptedPatch(
  signal: NodeJS.Signals,
): Promise<Finished & { left: readonly string[] }> {
  const folder = temporaryFolder({
    'model.onnx': 'bert-external-data/model.onnx',
    'model.onnx.data': 'bert-external-data/model.onnx.data',
  });
  truncateSync(join(folder, 'model.onnx.data'), 1024 ** 3);
  const out = join(folder, 'out');
  mkdirSync(out);
  const child = start(folder, ['patch', 'model.onnx', '-o', 'out/model.onnx', '--json']);
  const end = finished(child);
  await writingInto(out);
  child.kill(signal);
  const ended = await end;
  return ended.code === 0 ? interruptedPatch(signal) : { ...ended, left: readdirSync(out) };
}

async function writingInto(folder: string): Promise<void> {
  while (readdirSync(folder).length === 0) await sleep(2);
}

// Windows has no signals to send.
describe.skipIf(process.platform === 'win32')('a signal', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('%s ends the work with %d and leaves nothing behind', async (signal, expected) => {
    const { code, stdout, stderr, left } = await interruptedPatch(signal);
    expect(code).toBe(expected);
    expect(JSON.parse(stdout).error.code).toBe('aborted');
    expect(stderr).toMatch(/error: interrupted; nothing was written/);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(left).toEqual([]);
  });

  it('ends what writes nothing at once', async () => {
    const child = start(temporaryFolder(), ['providers']);
    const end = finished(child);
    // The first thing that the command does is to start the trials.
    await once(child, 'spawn');
    await sleep(600);
    child.kill('SIGINT');
    const { code, stdout } = await end;
    // Where it was done already there was nothing left to interrupt.
    expect([130, 0, null]).toContain(code);
    if (code === 130) expect(stdout).toBe('');
  });
});

it('lets external data stand where the output is beside the model', async () => {
  const folder = temporaryFolder({
    'model.onnx': 'bert-external-data/model.onnx',
    'model.onnx.data': 'bert-external-data/model.onnx.data',
  });
  const { code } = await finished(start(folder, ['patch', 'model.onnx', '--quiet']));
  expect(code).toBe(0);
  expect(existsSync(join(folder, 'model.lora.onnx'))).toBe(true);
  expect(readdirSync(folder)).toHaveLength(3);
});
