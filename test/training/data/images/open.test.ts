import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { ValueInfo } from '../../../../src/onnx/model.js';
import { openImages } from '../../../../src/training/data/images/open.js';
import type { DataRequest } from '../../../../src/training/data/request.js';

const inputs = [{ name: 'x', dataType: 1, shape: ['n', 1, 2, 2] }] as unknown as ValueInfo[];

/** Images of one gray each, in a folder of their own. */
async function grays(...values: number[]): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'images-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const raw = { width: 2, height: 2, channels: 1 } as const;
  return Promise.all(
    values.map(async (value, i) => {
      const path = join(folder, `${i}.png`);
      await sharp(new Uint8Array(4).fill(value), { raw }).toFile(path);
      return path;
    }),
  );
}

function open(
  paths: readonly string[],
  labels: readonly string[],
  options: Partial<DataRequest> = {},
) {
  const images = paths.map((path, i) => ({
    path,
    label: labels[i]!,
    source: `data.csv, line ${i + 2}`,
  }));
  const request = { inputs, loss: 'cross-entropy', mean: [0], ...options } as const;
  return openImages('data.csv', images, ['cat', 'dog'], request);
}

describe('images', () => {
  it('are samples with the numbers of their classes', async () => {
    const dataset = await open(await grays(0, 255, 51), ['dog', 'cat', 'dog']);
    expect(dataset.size).toBe(3);
    expect(dataset.classes).toEqual(['cat', 'dog']);
    const batch = await dataset.batch([2, 1]);
    const x = batch.get('x')!;
    expect(x.dims).toEqual([2, 1, 2, 2]);
    expect([...(x.data as Float32Array)].map((value) => Math.round(value * 5))).toEqual([
      ...[1, 1, 1, 1],
      ...[5, 5, 5, 5],
    ]);
    expect([...(batch.get('labels')!.data as BigInt64Array)]).toEqual([1n, 0n]);
  });

  it('have texts as labels for ctc', async () => {
    const paths = await grays(0, 0);
    const dictionary = join(paths[0]!, '../chars.txt');
    writeFileSync(dictionary, 'a\nb\n');
    const dataset = await open(paths, ['ab', 'b'], { loss: 'ctc', dictionary });
    const batch = await dataset.batch([0, 1]);
    expect(batch.get('labels')).toMatchObject({
      dims: [2, 2],
      data: BigInt64Array.of(1n, 2n, 2n, 0n),
    });
    expect(batch.get('label_lengths')!.data).toEqual(BigInt64Array.of(2n, 1n));
    await expect(open(paths, ['ab', 'x'], { loss: 'ctc', dictionary })).rejects.toThrow(
      `data.csv, line 3: ${dictionary} has no "x"`,
    );
    await expect(open(paths, ['ab', 'x'], { loss: 'ctc' })).rejects.toThrow('cannot train ctc');
  });

  it('have numbers as labels for mse', async () => {
    const paths = await grays(0, 0);
    const dataset = await open(paths, ['1.5', '-2'], { loss: 'mse' });
    const batch = await dataset.batch([0, 1], ['target']);
    expect([...batch.keys()]).toEqual(['target']);
    expect(batch.get('target')!.data).toEqual(Float32Array.of(1.5, -2));
    await expect(open(paths, ['1.5', ''], { loss: 'mse' })).rejects.toThrow('"" is no number');
  });

  it('with an unknown class are told by their line, or passed over', async () => {
    const paths = await grays(1, 2);
    await expect(open(paths, ['cat', 'cow'])).rejects.toThrow(
      'data.csv, line 3: the class "cow" is not one of "cat", "dog"',
    );
    const dataset = await open(paths, ['cow', 'cat'], { skipBadRows: true });
    expect([dataset.size, dataset.skipped]).toEqual([1, 1]);
  });

  it('that are damaged are told by their path, or passed over', async () => {
    const paths = await grays(1, 2);
    writeFileSync(paths[0]!, 'no image');
    const strict = await open(paths, ['cat', 'dog']);
    await expect(strict.batch([0])).rejects.toThrow(paths[0]);
    const dataset = await open(paths, ['cat', 'dog'], { skipBadRows: true });
    expect([dataset.size, dataset.skipped]).toEqual([1, 1]);
    await expect(open([paths[0]!], ['cat'], { skipBadRows: true })).rejects.toThrow(
      'none of its 1 images can be read',
    );
  });

  it('are fed as 0 to 1, with a note, where nobody says more', async () => {
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    await open(await grays(1), ['cat'], { mean: undefined, onNote });
    expect(notes.join()).toContain('pixels are fed as 0 to 1');
  });
});
