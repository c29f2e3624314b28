/** Whose files are: claims and temporary files of living, dead and distant processes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Claim } from '../../src/onnx/claim.js';
import { isDead, ownerToken } from '../../src/onnx/owner.js';
import {
  removeStale,
  temporaryFolder as systemFolder,
  temporaryBeside,
} from '../../src/onnx/temporary.js';
import { writeFiles } from '../../src/onnx/write.js';
import { failure, temporaryFolder } from '../support/files.js';

const files = temporaryFolder();

/** The token of a process that was killed. */
async function deadOwner(): Promise<string> {
  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)']);
  await once(child, 'spawn');
  const token = ownerToken(child.pid);
  child.kill('SIGKILL');
  await once(child, 'exit');
  return token;
}

const distant = () => `00000000${ownerToken().slice(8)}`;

describe('an owner', () => {
  it('is dead when its process is, and when another one has its number', async () => {
    expect(isDead(ownerToken())).toBe(false);
    expect(isDead(await deadOwner())).toBe(true);
    const reused = ownerToken().replace(/.{8}$/, '12345678');
    if (existsSync('/proc/self/stat')) expect(isDead(reused)).toBe(true);
  });

  it('of another machine is not known to be dead', async () => {
    expect(isDead(`00000000${(await deadOwner()).slice(8)}`)).toBe(false);
  });
});

describe('what a killed run left', () => {
  it('goes with the next one of the same output, and nothing else does', async () => {
    const output = files.fresh('out');
    const dead = await deadOwner();
    const gone = `.out.${dead}.0123456789ab.tmp`;
    const kept = [
      `.out.${ownerToken()}.0123456789ab.tmp`,
      `.out.${distant()}.0123456789ab.tmp`,
      `.out2.${dead}.0123456789ab.tmp`,
      `.my.out.${dead}.0123456789ab.tmp`,
      '.out.tmp',
      '.out.0123456789ab.tmp',
      `.out.${dead}.tmp`,
    ];
    for (const name of [gone, ...kept]) writeFileSync(join(dirname(output), name), '');
    await writeFiles([{ path: output, pieces: [Buffer.from('new')] }], []);
    expect(readdirSync(dirname(output)).sort()).toEqual([...kept, 'out'].sort());
  });

  it('is found for names as long as a file may have', async () => {
    const name = `${'n'.repeat(250)}.onnx`;
    const output = files.fresh(name);
    await writeFiles([{ path: output, pieces: [Buffer.from('new')] }], []);
    const stale = temporaryBeside(output).replace(ownerToken(), await deadOwner());
    writeFileSync(stale, '');
    removeStale(output);
    expect(readdirSync(dirname(output))).toEqual([name]);
  });
});

describe('a claim', () => {
  it('keeps others out until it is released', async () => {
    const path = files.fresh('out');
    const claim = Claim.take(path);
    const { message, hint } = await failure(() => Claim.take(path), 'output-exists');
    expect(message).toContain(`${path} is being made by process ${process.pid} on `);
    expect(hint).toContain('.out.claim');
    claim.release();
    Claim.take(path).release();
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  it('of a dead process is taken over', async () => {
    const path = files.fresh('out');
    const file = join(dirname(path), '.out.claim');
    writeFileSync(file, `${await deadOwner()} 1 here\n`);
    const claim = Claim.take(path);
    expect(readFileSync(file, 'utf8')).toContain(ownerToken());
    claim.release();
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  it('of another machine holds as long as it is renewed', async () => {
    const path = files.fresh('out');
    const file = join(dirname(path), '.out.claim');
    writeFileSync(file, `${distant()} 1 there\n`);
    expect((await failure(() => Claim.take(path), 'output-exists')).message).toContain('on there');
    const before = new Date(Date.now() - 2 * 3600 * 1000);
    utimesSync(file, before, before);
    Claim.take(path).release();
  });

  it('of another run keeps every file from being written, and one of this run none', async () => {
    const path = files.fresh('out');
    const file = join(dirname(path), '.out.claim');
    const write = () => writeFiles([{ path, pieces: [Buffer.from('new')] }], [], { force: true });
    writeFileSync(file, `${distant()} 1 there\n`);
    expect((await failure(write, 'output-exists')).message).toContain('is being made by');
    expect(readdirSync(dirname(path))).toEqual(['.out.claim']);
    rmSync(file);
    const claim = Claim.take(path);
    await write();
    claim.release();
    await write();
    expect(readdirSync(dirname(path))).toEqual(['out']);
  });

  it('is not given up for a file that is none', async () => {
    const path = files.fresh('out');
    writeFileSync(join(dirname(path), '.out.claim'), 'what is this');
    await failure(() => Claim.take(path), 'output-exists');
  });
});

it('says so where there is no folder for temporary files', async () => {
  const before = process.env.TMPDIR;
  process.env.TMPDIR = join(files.fresh('none'), 'no');
  try {
    const { message, hint } = await failure(() => systemFolder('x-'), 'io');
    expect(message).toContain('no temporary folder can be made');
    expect(hint).toContain('TMPDIR');
  } finally {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  }
});

describe('an output that came there meanwhile', () => {
  /** Puts a file at `path` while it is being written. */
  const late = (path: string) => ({
    length: 3,
    chunks: () => {
      writeFileSync(path, 'theirs');
      return [Buffer.from('new')];
    },
  });

  it('stays without force', async () => {
    const path = files.fresh('out');
    await failure(() => writeFiles([{ path, pieces: [late(path)] }], []), 'output-exists');
    expect(readFileSync(path, 'utf8')).toBe('theirs');
    expect(readdirSync(dirname(path))).toEqual(['out']);
  });

  it('takes with it what went into place before', async () => {
    const [data, path] = [files.fresh('data'), files.fresh('out')];
    const write = () =>
      writeFiles(
        [
          { path: data, pieces: [] },
          { path, pieces: [late(path)] },
        ],
        [],
      );
    await failure(write, 'output-exists');
    expect(readdirSync(dirname(data))).toEqual([]);
  });
});
