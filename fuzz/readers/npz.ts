import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openNpz } from '../../src/formats/npz.js';
import { damageBytes } from '../mutate/bytes.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const FILE = 'arrays.npz';
const FIXTURES = join(import.meta.dirname, '../../test/fixtures/npz');

/** Archives of arrays, stored and deflated. */
export const npzReader: Reader = {
  seeds: () =>
    ['stored', 'deflated'].map((name) =>
      filesOf({ [FILE]: readFileSync(join(FIXTURES, `${name}.npz`)) }),
    ),
  mutate: (files, random) => withFile(files, FILE, (bytes) => damageBytes(bytes, random)),
  async run(folder) {
    const file = await openNpz(join(folder, FILE));
    for (const name of file.tensors.keys()) file.read(name);
    file.close();
  },
};
