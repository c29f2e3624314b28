import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { BadRow } from '../../../../src/training/data/rows/bad-row.js';
import { RowFile } from '../../../../src/training/data/rows/row-file.js';
import { failure, temporaryFolder } from '../../../support/files.js';

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
    expect(message).toMatch(/x\.parquet is no Parquet file that can be read: /);
    expect(existsSync(path)).toBe(true);
  });
});
