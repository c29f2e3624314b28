import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type PixelPlan, readPixels } from '../../../src/data/images/pixels.js';
import { crc32 } from '../../../src/formats/crc32.js';

const plan: PixelPlan = {
  ...{ height: 2, width: 3, channels: 'rgb', layout: 'nchw', fit: 'crop', kernel: 'bilinear' },
  ...{ scale: 1, mean: [0, 0, 0], std: [1, 1, 1] },
};

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'pixels-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

/** A file with these pixels, row by row. */
async function image(width: number, height: number, pixels: number[], name = 'a.png') {
  const channels = (pixels.length / width / height) as 1 | 3 | 4;
  const path = join(folder(), name);
  await sharp(Uint8Array.from(pixels), { raw: { width, height, channels } }).toFile(path);
  return path;
}

// Two rows of three pixels.
const small = [10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52, 60, 61, 62];

describe('pixels', () => {
  it('are the numbers of the file where the size fits', async () => {
    const path = await image(3, 2, small);
    const read = (more: Partial<PixelPlan>) => readPixels(path, { ...plan, ...more });
    expect([...(await read({ layout: 'nhwc' }))]).toEqual(small);
    const red = [10, 20, 30, 40, 50, 60];
    expect([...(await read({})).subarray(0, 6)]).toEqual(red);
    expect([...(await read({ channels: 'bgr' })).subarray(12)]).toEqual(red);
  });

  it('are scaled, shifted and spread by channel', async () => {
    const path = await image(3, 2, small);
    const scaled = { scale: 1 / 10, mean: [1, 2, 3], std: [1, 2, 4] };
    const values = await readPixels(path, { ...plan, ...scaled, layout: 'nhwc' });
    expect(values[0]).toBeCloseTo(0, 6);
    expect(values[1]).toBeCloseTo((1.1 - 2) / 2, 6);
    expect(values[5]).toBeCloseTo((2.2 - 3) / 4, 6);
  });

  it('are one channel for a model of gray images', async () => {
    const path = await image(3, 2, [1, 2, 3, 4, 5, 6]);
    const gray = await readPixels(path, { ...plan, channels: 'gray', mean: [0], std: [1] });
    expect([...gray]).toEqual([1, 2, 3, 4, 5, 6]);
    const rgb = await readPixels(path, plan);
    expect([...rgb]).toEqual([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]);
  });

  it('stand on white where the image is transparent', async () => {
    const path = await image(1, 1, [9, 9, 9, 0]);
    expect([...(await readPixels(path, { ...plan, height: 1, width: 1 }))]).toEqual([
      255, 255, 255,
    ]);
  });
});

describe('an image of another shape', () => {
  // Six columns, of which the middle two are 200.
  const bars = [0, 0, 200, 200, 0, 0, 0, 0, 200, 200, 0, 0];
  const gray = { ...plan, channels: 'gray', mean: [0], std: [1], kernel: 'nearest' } as const;

  it('loses its sides where it is cropped', async () => {
    const path = await image(6, 2, bars);
    const values = await readPixels(path, { ...gray, height: 2, width: 2 });
    expect([...values]).toEqual([200, 200, 200, 200]);
  });

  it('is squeezed where it is stretched', async () => {
    const path = await image(6, 2, bars);
    const values = await readPixels(path, { ...gray, fit: 'stretch', height: 2, width: 3 });
    expect([...values]).toEqual([0, 200, 0, 0, 200, 0]);
  });

  it('is followed by zeros of the model, whatever the mean', async () => {
    const path = await image(2, 1, [200, 200]);
    const padded = { ...gray, fit: 'pad', mean: [100], height: 2, width: 4 } as const;
    const values = await readPixels(path, padded);
    expect([...values]).toEqual([100, 100, 100, 100, 100, 100, 100, 100]);
    const wide = await readPixels(path, { ...padded, height: 1, width: 4 });
    expect([...wide]).toEqual([100, 100, 0, 0]);
  });

  it('is scaled first where the size to scale to is another', async () => {
    const path = await image(6, 2, bars);
    const scaled = { ...gray, scaled: { height: 2, width: 6 }, height: 2, width: 2 };
    expect([...(await readPixels(path, scaled))]).toEqual([200, 200, 200, 200]);
  });
});

// Row 0 of Pillow's resize((3, 2), kernel) of the image below.
const pillow = {
  bilinear: [25, 9, 153, 68, 9, 170, 111, 9, 142],
  nearest: [24, 12, 155, 72, 12, 175, 120, 12, 134],
};

it.each(['bilinear', 'nearest'] as const)('shrinks %s as Pillow does', async (kernel) => {
  const pixels: number[] = [];
  for (let y = 0; y < 4; y++) {
    for (let x = 0; x < 18; x++) {
      pixels.push(x * 8, y * 12, Math.trunc(127 + 50 * Math.sin(x / 5)));
    }
  }
  const path = await image(18, 4, pixels);
  const values = await readPixels(path, { ...plan, fit: 'stretch', layout: 'nhwc', kernel });
  pillow[kernel].forEach((expected, i) => {
    expect(Math.abs(values[i]! - expected)).toBeLessThanOrEqual(2);
  });
});

it.each([
  ['no image at all', Buffer.from('hello')],
  ['an empty file', Buffer.alloc(0)],
])('names a file that is %s', async (_, bytes) => {
  const path = join(folder(), 'a.png');
  writeFileSync(path, bytes);
  await expect(readPixels(path, plan)).rejects.toThrow(`${path}: `);
});

it('names a file that is cut off', async () => {
  const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251);
  const whole = await sharp(noise, { raw: { width: 64, height: 64, channels: 3 } })
    .jpeg()
    .toBuffer();
  const path = join(folder(), 'a.jpg');
  writeFileSync(path, whole.subarray(0, whole.length / 2));
  await expect(readPixels(path, plan)).rejects.toMatchObject({ code: 'invalid-data' });
});

describe('images', () => {
  it.each([
    ['sides that nothing has', [30_000, 30_000], 'it has 30000 x 30000 pixels, at most 67108864'],
    ['a side that no camera has', [2_097_192, 30], 'at most 65535 a side are read'],
    ['a side that grows when the other is scaled', [60_000, 1], 'scaled to be cut, it has'],
  ])('of a few bytes with %s are refused before they are decoded', async (_, sides, problem) => {
    const path = join(folder(), 'a.png');
    writeFileSync(path, header(sides as [number, number]));
    const square = { ...plan, height: 224, width: 224 };
    await expect(readPixels(path, square)).rejects.toThrow(problem);
  });

  it('are not made of drawings, whatever the file is called', async () => {
    const path = join(folder(), 'a.png');
    writeFileSync(path, '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>');
    await expect(readPixels(path, plan)).rejects.toThrow('images of the kind svg are not read');
  });
});

/** A PNG file that ends behind the beginning of its pixels. */
function header([width, height]: readonly [number, number]): Buffer {
  const fields = Buffer.alloc(13);
  fields.writeUInt32BE(width);
  fields.writeUInt32BE(height, 4);
  fields.set([8, 2, 0, 0, 1], 8);
  const pixels = deflateSync(Buffer.alloc(1000));
  const chunks = [chunk('IHDR', fields), chunk('IDAT', pixels), chunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([Buffer.from('89504e470d0a1a0a', 'hex'), ...chunks]);
}

function chunk(name: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(name, 'latin1'), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}
