import { closeSync, ftruncateSync, openSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkDataset } from '../../src/data/check.js';
import { openDataset } from '../../src/data/open-dataset.js';
import { encodeSafetensors } from '../../src/formats/safetensors-output.js';
import { byteLength, type DataTypeName } from '../../src/onnx/dtype.js';
import { elementCount } from '../../src/onnx/model.js';
import { tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import { labelRequest } from '../../src/training/losses/index.js';
import { bytesOf, npy, npz, zip } from '../formats/npz-writer.js';
import { failure, temporaryFolder } from '../support/files.js';
import { safetensors } from './data.js';

const folder = temporaryFolder();

const descrs = {
  bool: '|b1',
  int8: '|i1',
  uint8: '|u1',
  int16: '<i2',
  uint16: '<u2',
  int32: '<i4',
  uint32: '<u4',
  int64: '<i8',
  uint64: '<u8',
  float16: '<f2',
  float32: '<f4',
  float64: '<f8',
} as const;
type Stored = keyof typeof descrs;

interface Array_ {
  readonly name: string;
  readonly dtype: Stored;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

const writers: Readonly<Record<string, (arrays: readonly Array_[]) => [Uint8Array, string]>> = {
  'a .safetensors file': (arrays) => [encodeSafetensors(arrays), 'data.safetensors'],
  'an .npz file': (arrays) => [toNpz(arrays, false), 'data.npz'],
  'a compressed .npz file': (arrays) => [toNpz(arrays, true), 'DATA.NPZ'],
};

function toNpz(arrays: readonly Array_[], deflate: boolean): Uint8Array {
  const files = arrays.map(({ name, dtype, shape, data }) => [
    name,
    npy(descrs[dtype], shape, data),
  ]);
  return npz(Object.fromEntries(files), deflate);
}

/** Arrays that share their first axis, and numbers of samples to take. */
const anySamples = fc.integer({ min: 1, max: 9 }).chain((size) => {
  const anyArray = fc
    .record({
      dtype: fc.constantFrom(...(Object.keys(descrs) as Stored[])),
      sample: fc.array(fc.nat(3), { maxLength: 3 }),
    })
    .chain(({ dtype, sample }) => {
      const shape = [size, ...sample];
      const length = byteLength(dtype, elementCount(shape));
      const data = fc.uint8Array({ minLength: length, maxLength: length });
      return data.map((bytes) => ({ dtype, shape, data: bytes }));
    });
  return fc.record({
    arrays: fc.array(anyArray, { minLength: 1, maxLength: 4 }),
    indices: fc.array(fc.nat(size - 1), { maxLength: 12 }),
  });
});

describe.each(Object.entries(writers))('%s', (_, write) => {
  it('gives the chosen samples of every array, in the chosen order', async () => {
    await fc.assert(
      fc.asyncProperty(anySamples, async ({ arrays, indices }) => {
        const named = arrays.map((array, i) => ({ ...array, name: `key${i}` }));
        const dataset = await openDataset(folder.write(...write(named)));
        const batch = await dataset.batch(indices);
        expect([...batch.keys()].sort()).toEqual(named.map(({ name }) => name));
        for (const { name, dtype, shape, data } of named) {
          expect(dataset.keys.get(name)).toEqual({ dtype, shape: shape.slice(1) });
          expect(dataset.size).toBe(shape[0]);
          const width = data.length / shape[0]!;
          const rows = indices.map((i) => data.subarray(i * width, (i + 1) * width));
          const value = batch.get(name)!;
          expect([value.dtype, value.dims]).toEqual([dtype, [indices.length, ...shape.slice(1)]]);
          expect(Buffer.from(bytesOf(value.data)).equals(Buffer.concat(rows))).toBe(true);
        }
        dataset.close();
      }),
      { numRuns: 60 },
    );
  });
});

describe('openDataset', () => {
  it('reads only the keys that are asked for', async () => {
    const columns = { a: ['uint8', [2], [1, 2]], b: ['uint8', [2], 0] } as const;
    const dataset = await openDataset(folder.write(safetensors(columns), 'x.safetensors'));
    expect([...(await dataset.batch([1], ['a'])).keys()]).toEqual(['a']);
    dataset.close();
  });

  it('gives bfloat16 as float32, which holds all of it', async () => {
    const bytes = safetensors({ x: ['bfloat16', [3, 1], [1.5, -2, 3e38]] });
    const dataset = await openDataset(folder.write(bytes, 'x.safetensors'));
    const x = (await dataset.batch([1, 0])).get('x')!;
    expect(dataset.keys.get('x')!.dtype).toBe('float32');
    expect(x).toEqual({ dtype: 'float32', dims: [2, 1], data: Float32Array.of(-2, 1.5) });
    dataset.close();
  });

  it.each(['.safetensors', '.npz'])(
    'reads 300 MB in a %s file with little memory',
    async (extension) => {
      const [rows, width] = [75_000, 1000];
      const path = sparse(extension, rows, width);
      const dataset = await openDataset(path);
      globalThis.gc?.();
      const before = process.memoryUsage().arrayBuffers;
      const { x } = Object.fromEntries(await dataset.batch([rows - 1, 5, 40_000]));
      expect(x!.dims).toEqual([3, width]);
      expect(tensorToFloat64(x!).every((value) => value === 0)).toBe(true);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2e6);
      let most = 0;
      const onProgress = () => {
        most = Math.max(most, process.memoryUsage().arrayBuffers);
      };
      const inputs = [{ name: 'x', dtype: 'float32', shape: ['batch', width] }] as const;
      const needs = {
        inputs,
        lossInputs: [],
        ...labelRequest('mnr'),
        output: { shape: null },
      } as const;
      await checkDataset(dataset, needs, { onProgress });
      expect(most - before).toBeLessThan(100e6);
      dataset.close();
    },
  );

  it.each([
    ['data.csv', 'its name ends in .csv'],
    ['data', 'its name has no extension'],
    ['data.constructor', 'its name ends in .constructor'],
  ])('refuses %s', async (name, reason) => {
    const path = folder.write(new Uint8Array(1), name);
    const { message, hint } = await failure(() => openDataset(path), 'invalid-argument');
    expect(message).toBe(`${path} is not a data file: ${reason}`);
    expect(hint).toContain('.safetensors or .npz');
  });

  it.each<[string, Parameters<typeof safetensors>[0], string]>([
    [
      'different numbers of samples',
      { ids: ['int64', [3, 2], 0], mask: ['int64', [3, 2], 1], labels: ['int64', [2], 0] },
      'its keys have different numbers of samples: ids, mask (3); labels (2)',
    ],
    [
      'a scalar',
      { ids: ['int64', [3], 0], scale: ['float32', [], 1] },
      'key scale is a single number, expected an axis that counts samples',
    ],
    ['no arrays', {}, 'the file holds no arrays'],
  ])('refuses %s', async (_, columns, reason) => {
    const path = folder.write(safetensors(columns), 'data.safetensors');
    expect((await failure(() => openDataset(path), 'invalid-data')).message).toBe(
      `${path}: ${reason}`,
    );
  });

  it('refuses types that no model takes', async () => {
    const tensor = {
      name: 'z',
      dtype: 'complex64' as DataTypeName,
      shape: [1],
      data: new Uint8Array(8),
    };
    const path = folder.write(encodeSafetensors([tensor]), 'data.safetensors');
    expect((await failure(() => openDataset(path), 'invalid-data')).message).toBe(
      `${path}: key z holds complex64, expected bools, integers, or floats of 16, 32 or 64 bits`,
    );
  });

  it('says that data, not an adapter, are damaged', async () => {
    const whole = safetensors({ x: ['float32', [4], 1] });
    const path = folder.write(whole.subarray(0, 40), 'data.safetensors');
    await failure(() => openDataset(path), 'invalid-data');
    await failure(() => openDataset(join(folder.path, 'none.npz')), 'file-not-found');
  });

  it.each(['none.npz', 'none.csv', 'none.txt', 'none'])(
    'says that %s is not there',
    async (name) => {
      const path = join(folder.path, name);
      const { message, hint } = await failure(() => openDataset(path), 'file-not-found');
      expect(message).toBe(`${path} does not exist: there are no samples to read`);
      expect(hint).toMatch(/relative to the current folder.*\.safetensors or \.npz.*\.csv.*folder/);
    },
  );

  it('says when the file became shorter meanwhile', async () => {
    const path = folder.write(safetensors({ x: ['float32', [4], 1] }), 'data.safetensors');
    const dataset = await openDataset(path);
    truncateSync(path, 60);
    const { message } = await failure(() => dataset.batch([3]), 'invalid-data');
    expect(message).toContain('it changed while open');
    dataset.close();
  });
});

/** 300 MB of zeros that take no room on the disk. */
function sparse(extension: string, rows: number, width: number): string {
  const bytes = rows * width * 4;
  if (extension === '.npz') return sparseNpz(rows, width, bytes);
  const header = JSON.stringify({
    x: { dtype: 'F32', shape: [rows, width], data_offsets: [0, bytes] },
  }).padEnd(120);
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(header.length));
  const path = folder.fresh('large.safetensors');
  writeFileSync(path, Buffer.concat([start, Buffer.from(header)]));
  truncateSync(path, 128 + bytes);
  return path;
}

/** A member that claims the size, with the zip directory moved behind a hole. */
function sparseNpz(rows: number, width: number, bytes: number): string {
  const head = npy('<f4', [rows, width], new Uint8Array(0));
  const claims = { size: head.length + bytes };
  const whole = zip([{ name: 'x.npy', bytes: head, claims }]);
  const directory = whole.indexOf('PK\x01\x02', 0, 'latin1');
  const tail = Buffer.from(whole.subarray(directory));
  tail.writeUInt32LE(directory + bytes, tail.length - 6);
  const path = folder.fresh('large.npz');
  const file = openSync(path, 'w');
  writeFileSync(file, whole.subarray(0, directory));
  ftruncateSync(file, directory + bytes);
  closeSync(file);
  writeFileSync(path, tail, { flag: 'a' });
  return path;
}
