import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Piece } from '../../src/onnx/edit.js';
import { FileSource } from '../../src/onnx/source.js';
import { checkOutput, type Progress, writeFiles } from '../../src/onnx/write.js';
import { failure, temporaryFolder } from '../support/files.js';
import { withReadOnly, withTmpfs } from '../support/mounts.js';

const files = temporaryFolder();
const MiB = 2 ** 20;
const text = (value: string) => new TextEncoder().encode(value);

/** A new folder, so that a test can say all that is in it. */
function folder(): string {
  const path = files.fresh('folder');
  mkdirSync(path);
  return path;
}

/** A piece that gives 1 MiB and then fails. */
function failing(error: Error): Piece {
  const chunks = function* () {
    yield new Uint8Array(MiB);
    throw error;
  };
  return { length: 2 * MiB, chunks };
}

describe('a file', () => {
  it('is its pieces in their order: bytes, spans and what is computed', async () => {
    const path = join(folder(), 'out');
    const middle = 'x'.repeat(9 * MiB);
    const source = new FileSource(files.write(text(`<${middle}>`)));
    const chunks = async function* () {
      yield text('com');
      yield text('puted');
    };
    await writeFiles(
      [
        {
          path,
          pieces: [text('a'), { source, start: 1, end: 1 + 9 * MiB }, { length: 8, chunks }],
        },
      ],
      [],
    );
    source.close();
    expect(readFileSync(path, 'latin1')).toBe(`a${middle}computed`);
    expect(readdirSync(dirname(path))).toEqual(['out']);
  });

  it('may be empty', async () => {
    const path = join(folder(), 'out');
    await writeFiles([{ path, pieces: [] }], []);
    expect(statSync(path).size).toBe(0);
  });

  it('is counted in bytes up to its length', async () => {
    const path = join(folder(), 'out');
    const seen: Progress[] = [];
    await writeFiles([{ path, pieces: [new Uint8Array(10 * MiB)] }], [], {
      onProgress: (progress) => seen.push(progress),
    });
    expect(seen.map(({ done }) => done / MiB)).toEqual([4, 8, 10]);
    expect(seen[0]).toMatchObject({ phase: 'writing', total: 10 * MiB, unit: 'bytes' });
  });
});

describe('a failure', () => {
  it('leaves the old files and nothing else', async () => {
    const place = folder();
    const [first, second] = [join(place, 'first'), join(place, 'second')];
    writeFileSync(first, 'old');
    const write = writeFiles(
      [
        { path: first, pieces: [text('new')] },
        { path: second, pieces: [failing(new Error('no more'))] },
      ],
      [],
      { force: true },
    );
    await expect(write).rejects.toThrow('no more');
    expect(readFileSync(first, 'utf8')).toBe('old');
    expect(readdirSync(place)).toEqual(['first']);
  });

  it('is an error where a piece is not as long as it said', async () => {
    const path = join(folder(), 'out');
    const piece = { length: 3, chunks: () => [text('four')] };
    await expect(writeFiles([{ path, pieces: [piece] }], [])).rejects.toThrow('came with 4');
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  it('is an error where a source ends before a piece does', async () => {
    const path = join(folder(), 'out');
    const source = new FileSource(files.write(text('short')));
    await failure(() => writeFiles([{ path, pieces: [{ source, start: 0, end: 9 }] }], []), 'io');
    source.close();
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  it.each([
    ['before the start', 0],
    ['in the middle', 4 * MiB],
    ['at the last byte', 12 * MiB],
  ])('is an abort %s', async (_, at) => {
    const place = folder();
    const path = join(place, 'out');
    writeFileSync(path, 'old');
    const controller = new AbortController();
    if (at === 0) controller.abort();
    const run = () =>
      writeFiles([{ path, pieces: [new Uint8Array(12 * MiB)] }], [], {
        force: true,
        signal: controller.signal,
        onProgress: ({ done }) => done >= at && controller.abort(),
      });
    expect((await failure(run, 'aborted')).message).toBe('interrupted; nothing was written');
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(readdirSync(place)).toEqual(['out']);
  });
});

describe('files that are replaced together', () => {
  it('leave the last one, which makes the others into something, as it was where they fail', async () => {
    const place = folder();
    const [first, last] = [join(place, 'first'), join(place, 'last')];
    writeFileSync(first, 'old');
    writeFileSync(last, 'old');
    const chunks = () => {
      // Nothing can be renamed to a folder.
      rmSync(first);
      mkdirSync(join(first, 'below'), { recursive: true });
      return [text('new')];
    };
    const written = [
      { path: first, pieces: [text('new')] },
      { path: last, pieces: [{ length: 3, chunks }] },
    ];
    await failure(() => writeFiles(written, [], { force: true }), 'not-a-file');
    expect(readFileSync(last, 'utf8')).toBe('old');
    expect(readdirSync(place)).toEqual(['first', 'last']);
  });
});

describe('an output', () => {
  const write = (path: string, inputs: string[] = [], force = false) =>
    writeFiles([{ path, pieces: [text('new')] }], inputs, { force });

  it('that exists is replaced with force only', async () => {
    const path = join(folder(), 'out');
    writeFileSync(path, 'old');
    const { message, hint } = await failure(() => write(path), 'output-exists');
    expect(message).toBe(`${path} exists already`);
    expect(hint).toContain('`force: true`');
    expect(readFileSync(path, 'utf8')).toBe('old');
    await write(path, [], true);
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  it.each([
    ['by its name', (input: string) => input],
    ['by another spelling', (input: string) => join(dirname(input), '.', 'x', '..', 'input')],
    [
      'through a link',
      (input: string) => {
        symlinkSync('input', `${input}.link`);
        return `${input}.link`;
      },
    ],
    [
      'through a hard link',
      (input: string) => {
        linkSync(input, `${input}.hard`);
        return `${input}.hard`;
      },
    ],
    [
      'through a linked folder',
      (input: string) => {
        symlinkSync(dirname(input), `${dirname(input)}.link`);
        return join(`${dirname(input)}.link`, 'input');
      },
    ],
  ])('is never an input: %s', async (_, nameOf) => {
    const input = join(folder(), 'input');
    writeFileSync(input, 'old');
    const path = nameOf(input);
    const { message } = await failure(() => write(path, [input], true), 'invalid-argument');
    expect(message).toBe(`${path} is an input; inputs are never modified`);
    expect(readFileSync(input, 'utf8')).toBe('old');
  });

  it('through a link replaces the link, not what it points to', async () => {
    const place = folder();
    writeFileSync(join(place, 'other'), 'old');
    symlinkSync('other', join(place, 'out'));
    await write(join(place, 'out'), [], true);
    expect(readFileSync(join(place, 'other'), 'utf8')).toBe('old');
    expect(readFileSync(join(place, 'out'), 'utf8')).toBe('new');
  });

  it('is not mistaken for an input whose name is none', async () => {
    const path = join(folder(), 'out');
    writeFileSync(path, 'old');
    const names = ['\0', 'n'.repeat(5000), join(path, 'below'), ''];
    await write(path, names, true);
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  it.each([
    [
      'in a folder that does not exist',
      (place: string) => join(place, 'no', 'out'),
      'file-not-found',
    ],
    ['below a file', (place: string) => join(place, 'file', 'out'), 'file-not-found'],
    ['that is a folder', (place: string) => place, 'not-a-file'],
    ['in a folder that links to itself', (place: string) => join(place, 'loop', 'out'), 'io'],
    ['with a name that is too long', (place: string) => join(place, 'n'.repeat(300)), 'io'],
  ] as const)('%s is refused before any work', async (_, nameOf, code) => {
    const place = folder();
    writeFileSync(join(place, 'file'), '');
    symlinkSync('loop', join(place, 'loop'));
    const path = nameOf(place);
    const { message } = await failure(() => checkOutput(path, [], true), code);
    expect(message.startsWith(place)).toBe(true);
  });

  it('in a read-only folder is refused', async (context) => {
    const place = files.fresh('read-only');
    await withReadOnly(context, place, async () => {
      const { message } = await failure(() => write(join(place, 'out')), 'io');
      expect(message).toMatch(/out: permission denied \((EROFS|EACCES)\)$/);
      expect(readdirSync(place)).toEqual([]);
    });
  });

  it('that does not fit on the disk leaves the old file', async (context) => {
    const place = files.fresh('small-disk');
    await withTmpfs(context, place, 'size=1m', async () => {
      const path = join(place, 'out');
      writeFileSync(path, 'old');
      const pieces = [new Uint8Array(8 * MiB)];
      const run = () => writeFiles([{ path, pieces }], [], { force: true });
      const { message } = await failure(run, 'io');
      expect(message).toBe(`${path}: no space left on the device (ENOSPC)`);
      expect(readFileSync(path, 'utf8')).toBe('old');
      expect(readdirSync(place)).toEqual(['out']);
    });
  });
});

describe('kill -9', () => {
  const child = fileURLToPath(new URL('./write-child.mjs', import.meta.url));

  interface Kill {
    /** The line of the writer's own, */
    readonly at: (line: string) => boolean;
    /** the milliseconds behind it, */
    readonly delay?: number;
    /** and how many bytes are written at most, however late the kill comes. */
    readonly last?: number;
  }

  /** Starts the writer and kills it. */
  async function killed(path: string, size: number, { at, delay = 0, last }: Kill) {
    const sizes = [size, ...(last === undefined ? [] : [last])].map(String);
    const writer = spawn(process.execPath, [child, path, ...sizes], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exit = once(writer, 'exit');
    for await (const line of createInterface(writer.stdout)) if (at(line)) break;
    await new Promise((resolve) => setTimeout(resolve, delay));
    writer.kill('SIGKILL');
    expect(await exit).toEqual([null, 'SIGKILL']);
  }

  it.each([0, 0.2, 0.5, 0.8])(
    'while %f of 200 MB are written leaves the old file',
    async (part) => {
      const size = 200 * MiB;
      const place = folder();
      const path = join(place, 'out');
      writeFileSync(path, 'old');
      const at = (line: string) => Number(line.split(' ')[1]) >= part * size;
      await killed(path, size, { at, last: (part + 0.1) * size });
      expect(readFileSync(path, 'utf8')).toBe('old');
      // What was written so far must not pass for a model.
      expect(readdirSync(place).filter((name) => !/^\.out\.(.*\.tmp|claim)$/.test(name))).toEqual([
        'out',
      ]);
      rmSync(place, { recursive: true });
    },
  );

  it('around the end leaves an old or a new file, whole', async () => {
    const size = 32 * MiB;
    const path = join(folder(), 'out');
    for (const delay of [0, 5, 20, 60, 150]) {
      // From the last byte over sync and rename to somewhere in the next file.
      await killed(path, size, { at: (line) => line === `2 ${size}`, delay });
      const bytes = readFileSync(path);
      expect(bytes[0]).toBeGreaterThan(0);
      expect(bytes.equals(Buffer.alloc(size, bytes[0]))).toBe(true);
    }
  });
});
