import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { unpackParquet } from '../../src/data/rows/parquet/unpack.js';
import { damageBytes } from '../mutate/bytes.js';
import type { Random } from '../random.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const FILE = 'rows.parquet';
const SEEDS = ['none', 'snappy', 'zstd', 'gzip', 'brotli', 'kinds-1', 'kinds-2', 'bomb-dictionary'];
const FIXTURES = join(import.meta.dirname, '../../test/fixtures/parquet');

/** Parquet in every codec and encoding. */
export const parquetReader: Reader = {
  seeds: () =>
    SEEDS.map((name) => filesOf({ [FILE]: readFileSync(join(FIXTURES, `${name}.parquet`)) })),
  mutate: (files, random) => withFile(files, FILE, (bytes) => damaged(bytes, random)),
  run: async (folder) => (await unpackParquet(join(folder, FILE), {})).remove(),
};

/** The footer describes all there is, so half of the damage is there: in its numbers, mostly. */
function damaged(bytes: Uint8Array, random: Random): Uint8Array {
  if (random.chance(0.4)) return damageBytes(bytes, random);
  const copy = bytes.slice();
  const length = new DataView(copy.buffer, copy.byteOffset).getUint32(copy.length - 8, true);
  const start = copy.length - 8 - length;
  for (let i = random.below(3); i >= 0; i--) {
    const isInFooter = random.chance(0.6);
    const at = isInFooter ? start + random.below(length) : random.below(start);
    const number = random.pick([[0], [1], [0x7f], [0xff, 0xff, 0xff, 0xff, 0x0f], [0x80, 0x80, 1]]);
    copy.set(number.slice(0, copy.length - at), at);
  }
  return copy;
}
