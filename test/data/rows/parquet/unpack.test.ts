import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { BadRow } from '../../../../src/data/rows/bad-row.js';
import { RowFile } from '../../../../src/data/rows/row-file.js';
import { failure, temporaryFolder } from '../../../support/files.js';
import { withTmpfs } from '../../../support/mounts.js';

const FIXTURES = join(import.meta.dirname, '../../../fixtures/parquet');
const folder = temporaryFolder();

/** What test/fixtures/parquet/make.py wrote, but for the column of bytes. */
const expected = Array.from({ length: 50 }, (_, i) => ({
  text: `text number ${i} ä`,
  label: i % 3,
  messages: [{ role: 'user', content: `${i}` }],
}));

describe('Parquet files', () => {
  it.each(['none', 'snappy', 'zstd', 'gzip', 'brotli'])(
    'compressed by %s are rows',
    async (codec) => {
      const temporary = dirname(folder.fresh());
      vi.stubEnv('TMPDIR', temporary);
      const file = await RowFile.open(join(FIXTURES, `${codec}.parquet`), () => {});
      const rows = Array.from({ length: file.size }, (_, i) => file.at(i, (row) => row));
      expect(rows).toEqual(expected);
      file.close();
      vi.unstubAllEnvs();
      expect(readdirSync(temporary)).toEqual([]);
    },
  );

  it.each(['kinds-1', 'kinds-2'])('of all kinds and encodings are rows: %s', async (name) => {
    const file = await RowFile.open(join(FIXTURES, `${name}.parquet`), () => {});
    const rows = Array.from({ length: file.size }, (_, i) => file.at(i, (row) => row));
    file.close();
    const list = (i: number) =>
      Array.from({ length: i % 5 }, (_, j) => ({ a: j, b: j % 2 === 0 ? [] : [null, 'x'] }));
    expect(rows).toEqual(
      Array.from({ length: 60 }, (_, i) => ({
        text: i % 11 === 0 ? null : `text ${i} ä`,
        int: i % 13 === 0 ? null : i * 3 - 7,
        long: i === 0 ? 0 : i * 1e12 * (-1) ** i,
        double: i / 8,
        bool: i % 4 === 0 ? null : i % 3 === 0,
        list: i % 7 === 0 ? undefined : list(i),
      })),
    );
  });

  it.each([
    ['dictionary', 'the size of its rows as JSON is'],
    ['row', 'a row has more than 33554432 characters as JSON'],
    ['prefixes', 'the size of the values of a page is 1310720000, at most 268435456 is read'],
    ['rows', 'the size of its rows as JSON is 108000000, at most 16777216 is read'],
  ])('of a few bytes that stand for a great many are refused: %s', async (name, problem) => {
    const temporary = dirname(folder.fresh());
    vi.stubEnv('TMPDIR', temporary);
    const open = () => RowFile.open(join(FIXTURES, `bomb-${name}.parquet`), () => {});
    const start = performance.now();
    const { message } = await failure(open, 'invalid-data');
    vi.unstubAllEnvs();
    expect(message).toContain(problem);
    expect(performance.now() - start).toBeLessThan(8000);
    expect(readdirSync(temporary)).toEqual([]);
  });

  it('need a temporary folder', async () => {
    vi.stubEnv('TMPDIR', '/nowhere/at/all');
    const open = () => RowFile.open(join(FIXTURES, 'none.parquet'), () => {});
    const { message, hint } = await failure(open, 'io');
    vi.unstubAllEnvs();
    expect(message).toMatch(/rows cannot be unpacked: ENOENT/);
    expect(hint).toContain('TMPDIR');
  });

  it('need room there', async (context) => {
    const full = folder.fresh();
    await withTmpfs(context, full, 'size=4k', async () => {
      vi.stubEnv('TMPDIR', full);
      const open = () => RowFile.open(join(FIXTURES, 'kinds-1.parquet'), () => {});
      const { message } = await failure(open, 'io');
      vi.unstubAllEnvs();
      expect(message).toMatch(/rows cannot be unpacked: ENOSPC/);
      expect(readdirSync(full)).toEqual([]);
    });
  });

  it('name bad rows by their numbers', async () => {
    const check = ({ label }: { label?: unknown }) => {
      if (label === 2) throw new BadRow('two');
    };
    const open = RowFile.open(join(FIXTURES, 'snappy.parquet'), check);
    const { message } = await failure(() => open, 'invalid-data');
    expect(message).toMatch(/snappy\.parquet, row 3: two$/);
  });

  it('that are none are told', async () => {
    const path = folder.write(Buffer.from('text,label\n'), 'x.parquet');
    const { message } = await failure(() => RowFile.open(path, () => {}), 'invalid-data');
    expect(message).toMatch(/x\.parquet is not a readable Parquet file: /);
    expect(existsSync(path)).toBe(true);
  });
});
