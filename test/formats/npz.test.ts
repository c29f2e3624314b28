import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { crc32 } from '../../src/formats/crc32.js';
import { openNpz } from '../../src/formats/npz.js';
import { failure, temporaryFolder } from '../support/files.js';
import { bytesOf, npy, npz, zip } from './npz-writer.js';

const FIXTURES = join(import.meta.dirname, '../fixtures/npz');
const folder = temporaryFolder();

const save = (bytes: Uint8Array) => folder.write(bytes, 'data.npz');

/** The message without the path. */
async function refusal(path: string): Promise<string> {
  const { message } = await failure(() => openNpz(path), 'invalid-data');
  expect(message.startsWith(path)).toBe(true);
  return message.slice(path.length);
}

const floats = npy('<f4', [2, 2], bytesOf(Float32Array.of(1, 2, 3, 4)));

describe('files of NumPy', () => {
  it.each(['stored', 'deflated'])('reads %s arrays of each type', async (name) => {
    const file = await openNpz(join(FIXTURES, `${name}.npz`));
    const types = [...file.tensors].map(([key, { dtype, shape }]) => [key, dtype, shape]);
    expect(types).toEqual([
      ['x', 'float32', [4, 3, 2]],
      ['ids', 'int64', [4, 2]],
      ['bytes', 'int8', [4]],
      ['half', 'float16', [4]],
      ['double', 'float64', [4]],
      ['flags', 'bool', [4]],
      ['words', 'uint16', [4]],
    ]);
    const x = new Float32Array(file.read('x').buffer);
    expect([...x]).toEqual(Array.from({ length: 24 }, (_, i) => i / 8));
    expect(new BigInt64Array(file.read('ids').buffer).at(-1)).toBe(2n ** 40n);
    expect([...new Int8Array(file.read('bytes').buffer)]).toEqual([-128, -1, 0, 127]);
    expect([...new Uint16Array(file.read('half').buffer)]).toEqual([0x3800, 0xc000, 0x7bff, 1]);
    expect([...new Float64Array(file.read('double').buffer)]).toEqual([1e-300, Math.PI, -0, 1]);
    expect([...file.read('flags')]).toEqual([1, 0, 1, 1]);
    expect([...new Uint16Array(file.read('words', 2, 6).buffer)]).toEqual([65535, 3]);
    file.close();
  });

  it.each([
    ['fortran', ': array x is in Fortran order, expected C order'],
    ['big-endian', ': array big is big-endian (>f4), expected little-endian'],
    ['strings', ': array names holds strings (<U2), expected numbers'],
    ['objects', ': array things holds Python objects (|O), expected numbers'],
    ['records', ': array rows holds records, expected numbers'],
  ])('refuses %s.npz', async (name, reason) => {
    expect(await refusal(join(FIXTURES, `${name}.npz`))).toBe(reason);
  });
});

describe('openNpz', () => {
  it('gives back any bytes, whole and in part', async () => {
    const anyArray = fc.record({
      name: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 }),
      data: fc.uint8Array({ maxLength: 300 }),
      deflate: fc.boolean(),
      zip64: fc.boolean(),
    });
    const anyArrays = fc.uniqueArray(anyArray, { selector: ({ name }) => name, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(anyArrays, fc.nat(300), fc.nat(300), async (arrays, a, b) => {
        const members = arrays.map(({ name, data, ...how }) => ({
          name: `${name}.npy`,
          bytes: npy('|u1', [data.length], data),
          ...how,
        }));
        const file = await openNpz(save(zip(members)));
        expect([...file.tensors.keys()]).toEqual(arrays.map(({ name }) => name));
        for (const { name, data } of arrays) {
          const [start, end] = [Math.min(a, b, data.length), Math.min(Math.max(a, b), data.length)];
          expect([...file.read(name)]).toEqual([...data]);
          expect([...file.read(name, start, end)]).toEqual([...data.subarray(start, end)]);
          expect(() => file.read(name, 0, data.length + 1)).toThrow(RangeError);
        }
        file.close();
      }),
      { numRuns: 40 },
    );
  });

  it('takes names that look like paths: they are keys', async () => {
    const file = await openNpz(save(npz({ '../x': floats, '/y\\z': floats })));
    expect([...file.tensors.keys()]).toEqual(['../x', '/y\\z']);
    file.close();
  });

  it('cannot be read after it was closed', async () => {
    const file = await openNpz(save(npz({ x: floats })));
    file.close();
    file.close();
    await failure(() => file.read('x'), 'invalid-argument');
  });

  it('refuses two arrays of one name, with and without .npy', async () => {
    const member = (name: string) => ({ name, bytes: floats });
    expect(await refusal(save(zip([member('x.npy'), member('x.npy')])))).toBe(' has two arrays x');
    expect(await refusal(save(zip([member('x.npy'), member('x')])))).toBe(' has two arrays x');
  });

  it('refuses members that are no arrays', async () => {
    const path = save(zip([{ name: 'readme.txt', bytes: Buffer.from('hello') }]));
    const reason = 'is not a .npy array: it does not start with the word NUMPY';
    expect(await refusal(path)).toBe(`: array readme.txt ${reason}`);
  });

  it('refuses data that do not have the size of the header', async () => {
    const short = npy('<f4', [2, 2], new Uint8Array(15));
    const reason = ': array x is damaged: float32 (2, 2) takes 16 bytes, its data has';
    expect(await refusal(save(npz({ x: short })))).toBe(`${reason} 15`);
    expect(await refusal(save(npz({ x: short }, true)))).toBe(`${reason} 15`);
    const long = npy('<f4', [2, 2], new Uint8Array(17));
    expect(await refusal(save(npz({ x: long })))).toBe(`${reason} 17`);
  });

  it('refuses a file that is cut short anywhere', async () => {
    const whole = npz({ x: floats, y: floats }, true);
    for (let length = 0; length < whole.length; length += 7) {
      expect(await refusal(save(whole.subarray(0, length)))).toMatch(
        /^ is not a readable \.npz file: /,
      );
    }
  });

  it('refuses compressed bytes that were changed', async () => {
    const whole = npz(
      {
        x: npy(
          '|u1',
          [64],
          new Uint8Array(64).map((_, i) => i * 37),
        ),
      },
      true,
    );
    const changed = Buffer.from(whole);
    changed[120]! ^= 1;
    expect(await refusal(save(changed))).toMatch(/^: array x is damaged: /);
    const member = { name: 'x.npy', bytes: floats, deflate: true, claims: { crc: 1 } };
    const reason = ': array x is damaged: its bytes do not have the recorded checksum';
    expect(await refusal(save(zip([member])))).toBe(reason);
  });

  it('refuses sizes that lie before it makes room for them', async () => {
    const lie = (size: number, bytes = floats) =>
      save(zip([{ name: 'x.npy', bytes, deflate: true, claims: { size } }]));
    expect(await refusal(lie(2 ** 31))).toContain('which deflate cannot do');
    expect(await refusal(lie(floats.length - 1))).toContain(
      `it does not inflate to ${floats.length - 1} bytes`,
    );
    expect(await refusal(lie(floats.length + 1))).toContain(
      `it has ${floats.length} bytes, expected ${floats.length + 1}`,
    );
  });

  it('refuses more compressed arrays than fit in memory, without inflating them', async () => {
    // The claim stays below what deflate can do, so that only the total is wrong.
    const claims = { size: 2_200_000_000 };
    const path = save(zip([{ name: 'x.npy', bytes: noise(2_300_000), deflate: true, claims }]));
    const before = process.memoryUsage().rss;
    const { message, hint } = await failure(() => openNpz(path), 'invalid-data');
    expect(message).toContain('its compressed arrays take 2200000000 bytes or more in memory');
    expect(hint).toContain('numpy.savez');
    expect(process.memoryUsage().rss - before).toBeLessThan(200e6);
  });

  it('refuses encrypted members and other compression methods', async () => {
    const member = (claims: object) =>
      save(zip([{ name: 'x.npy', bytes: floats, deflate: true, claims }]));
    expect(await refusal(member({ method: 12 }))).toBe(
      ': array x has compression method 12, expected none (0) or deflate (8)',
    );
    expect(await refusal(member({ flags: 1 }))).toBe(': array x is encrypted');
  });

  it('refuses what is no zip file', async () => {
    expect(await refusal(save(floats))).toMatch(/^ is not a readable \.npz file: /);
    await failure(() => openNpz(join(folder.path, 'none.npz')), 'file-not-found');
    await failure(() => openNpz(folder.path), 'not-a-file');
  });
});

function noise(length: number): Uint8Array {
  let state = 1;
  return new Uint8Array(length).map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state >>> 24;
  });
}

describe('crc32', () => {
  it('gives the check value of its definition', () => {
    expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926);
    expect(crc32(new Uint8Array(0))).toBe(0);
  });

  it('agrees with what NumPy recorded', () => {
    const file = readFileSync(join(FIXTURES, 'stored.npz'));
    expect(file.readUInt32LE(0)).toBe(0x04034b50);
    const [names, extra] = [file.readUInt16LE(26), file.readUInt16LE(28)];
    const start = 30 + names + extra;
    const length = file.indexOf('PK\x03\x04', start, 'latin1') - start;
    expect(crc32(file.subarray(start, start + length))).toBe(file.readUInt32LE(14));
  });
});
