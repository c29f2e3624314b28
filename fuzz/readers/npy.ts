import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseNpyHeader } from '../../src/formats/npy.js';
import { damageBytes } from '../mutate/bytes.js';
import { oddInteger } from '../mutate/odd.js';
import type { Random } from '../random.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const ARRAY = 'array.npy';

const dict = (descr = '<f4', order = 'False', shape = '(2, 3)') =>
  `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }`;

/** Headers of NumPy's files. */
export const npyReader: Reader = {
  seeds: () =>
    [npy(dict()), npy(dict('|b1')), npy(dict('<i8'), 3)].map((bytes) =>
      filesOf({ [ARRAY]: bytes }),
    ),
  mutate: (files, random) =>
    random.chance(0.5)
      ? withFile(files, ARRAY, (bytes) => damageBytes(bytes, random))
      : filesOf({ [ARRAY]: npy(damagedDict(random), random.pick([1, 2, 3])) }),
  run: (folder) => parseNpyHeader(readFileSync(join(folder, ARRAY)), ARRAY),
};

function npy(header: string, version = 1): Uint8Array {
  const text = Buffer.from(`${header}\n`);
  const length = version === 1 ? Buffer.alloc(2) : Buffer.alloc(4);
  if (version === 1) length.writeUInt16LE(text.length & 0xffff);
  else length.writeUInt32LE(text.length);
  const start = Buffer.from([0x93, ...Buffer.from('NUMPY'), version, 0]);
  return Buffer.concat([start, length, text, Buffer.alloc(48)]);
}

function damagedDict(random: Random): string {
  const size = () => oddInteger(random);
  const shape = random.pick([
    `(${size()}, ${size()}, ${size()})`,
    `(${size()},)`,
    '()',
    '[2, 3]',
    `(${'1, '.repeat(random.pick([10, 5000]))})`,
    `(${'9'.repeat(40)},)`,
    'None',
  ]);
  const descr = random.pick([
    '<f4',
    '>f8',
    '<c16',
    '|O',
    '<U5',
    '__proto__',
    "', '",
    '<f4\n',
    '',
    '|V8',
  ]);
  const whole = dict(descr, random.pick(['True', 'False', '1']), shape);
  return random.pick([
    whole,
    whole + whole,
    whole.slice(1),
    whole.replaceAll(',', ',,'),
    '{'.repeat(9000),
  ]);
}
