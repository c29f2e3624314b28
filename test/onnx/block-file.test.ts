import { constants, readFileSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { afterEach, describe, expect, it, type TestContext, vi } from 'vitest';
import { BlockFile } from '../../src/onnx/block-file.js';
import { temporaryFolder } from '../support/files.js';

vi.mock('node:fs/promises', { spy: true });

const folder = temporaryFolder();
const { O_DIRECT } = constants;

afterEach(() => {
  vi.mocked(fs.open).mockReset();
});

/** A file of `length` bytes, and what it should hold. */
async function written(length: number, directFrom: number) {
  const path = folder.fresh();
  const expected = Buffer.from(Array.from({ length: 251 }, (_, i) => i));
  const file = await BlockFile.create(path, length, directFrom);
  let left = length;
  for (let i = 0; left > 0; i++) {
    const block = file.blocks[i % file.blocks.length]!;
    const count = Math.min(left, block.length);
    const at = length - left;
    for (let byte = 0; byte < count; byte++) block[byte] = expected[(at + byte) % 251]!;
    await file.write(block, count);
    left -= count;
  }
  await file.finish();
  await file.close();
  const wanted = Buffer.alloc(length, expected);
  return { isRight: readFileSync(path).equals(wanted), blockBytes: file.blocks[0]!.length };
}

const isDirect = (flags: unknown) => typeof flags === 'number' && (flags & O_DIRECT) !== 0;
const directOpens = () => vi.mocked(fs.open).mock.calls.filter(([, flags]) => isDirect(flags));

function needsDirect(context: TestContext): void {
  if (O_DIRECT === undefined)
    context.skip('this system has no O_DIRECT: nothing goes past the page cache');
}

describe('a file in blocks', () => {
  it.each([1, 4095, 4096, 512 * 1024, 1_300_000])(
    'of %i bytes holds what was written',
    async (length) => {
      expect(await written(length, Number.POSITIVE_INFINITY)).toMatchObject({ isRight: true });
      expect(directOpens()).toHaveLength(0);
    },
  );

  it('goes past the page cache where it is large, whatever its length', async (context) => {
    needsDirect(context);
    for (const length of [1, 4096, 5000, 4 * 1024 * 1024, 9_000_001]) {
      expect(await written(length, 0)).toEqual({ isRight: true, blockBytes: 4 * 1024 * 1024 });
    }
    expect(directOpens()).toHaveLength(5);
  });

  it('is written as any other where the file system refuses that', async (context) => {
    needsDirect(context);
    const { open } = await vi.importActual<typeof fs>('node:fs/promises');
    vi.mocked(fs.open).mockImplementation(async (path, flags, mode) => {
      if (!isDirect(flags)) return open(path, flags, mode);
      // As Linux does, which has made the file by then.
      await (await open(path, 'wx')).close();
      throw Object.assign(new Error('EINVAL: invalid argument, open'), { code: 'EINVAL' });
    });
    expect(await written(5000, 0)).toEqual({ isRight: true, blockBytes: 512 * 1024 });
  });

  it('never takes a file that is there', async () => {
    const path = folder.write(Buffer.from('mine'));
    for (const directFrom of [0, Number.POSITIVE_INFINITY]) {
      await expect(BlockFile.create(path, 10, directFrom)).rejects.toMatchObject({
        code: 'EEXIST',
      });
    }
    expect(readFileSync(path, 'utf8')).toBe('mine');
  });
});
