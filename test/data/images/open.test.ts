import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it, onTestFinished } from 'vitest';
import { checkDataset } from '../../../src/data/check.js';
import { openDataset } from '../../../src/data/open-dataset.js';
import type { DataRequest } from '../../../src/data/request.js';
import type { ValueInfo } from '../../../src/onnx/model.js';
import { labelRequest } from '../../../src/training/losses/index.js';
import { failure } from '../../support/files.js';

const inputs = [{ name: 'x', dataType: 1, shape: ['n', 1, 2, 2] }] as unknown as ValueInfo[];

/** A folder of files: images of one gray each, and texts. */
async function folderOf(files: Readonly<Record<string, number | string>>): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'images-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const raw = { width: 2, height: 2, channels: 1 } as const;
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    if (typeof content === 'string') writeFileSync(path, content);
    else await sharp(new Uint8Array(4).fill(content), { raw }).toFile(path);
  }
  return folder;
}

function open(path: string, options: Partial<DataRequest> = {}) {
  return openDataset(path, { inputs, ...labelRequest('cross-entropy'), mean: [0], ...options });
}

describe('a folder of classes', () => {
  it('is samples with the numbers of their classes', async () => {
    const folder = await folderOf({ 'cat/a.png': 255, 'dog/b.png': 0, 'dog/c.png': 51 });
    const dataset = await open(folder);
    expect([dataset.size, dataset.classes]).toEqual([3, ['cat', 'dog']]);
    const batch = await dataset.batch([2, 0]);
    const x = batch.get('x')!;
    expect(x.dims).toEqual([2, 1, 2, 2]);
    expect([...(x.data as Float32Array)].map((value) => Math.round(value * 5))).toEqual([
      ...[1, 1, 1, 1],
      ...[5, 5, 5, 5],
    ]);
    expect(batch.get('labels')!.data).toEqual(BigInt64Array.of(1n, 0n));
  });

  it('has the numbers that the model knows its classes by', async () => {
    const folder = await folderOf({ 'cat/a.png': 0, 'cow/b.png': 0 });
    const known = await open(folder, { classes: ['cow', 'dog', 'cat'] });
    expect((await known.batch([0, 1])).get('labels')!.data).toEqual(BigInt64Array.of(2n, 0n));
    const strict = open(folder, { classes: ['cow', 'dog'] });
    await expect(strict).rejects.toThrow(`${folder}/cat/a.png: `);
    const lenient = await open(folder, { classes: ['cow', 'dog'], skipBadRows: true });
    expect([lenient.size, lenient.skipped]).toEqual([1, 1]);
    expect((await lenient.batch([0])).get('labels')!.data).toEqual(BigInt64Array.of(0n));
  });

  it('with a damaged image is told by its path, or passed over', async () => {
    const folder = await folderOf({ 'cat/a.png': 'no image', 'dog/b.png': 7 });
    const strict = await open(folder);
    await expect(strict.batch([0])).rejects.toThrow(`${folder}/cat/a.png: `);
    const lenient = await open(folder, { skipBadRows: true });
    expect([lenient.size, lenient.skipped]).toEqual([1, 1]);
    expect((await lenient.batch([0])).get('labels')!.data).toEqual(BigInt64Array.of(1n));
    const bad = await folderOf({ 'cat/a.png': 'no image' });
    const none = open(bad, { skipBadRows: true });
    await expect(none).rejects.toThrow('none of its images can be read');
  });

  it('tells what in it is no image, and how pixels are fed', async () => {
    const folder = await folderOf({ 'cat/a.png': 0, 'cat/notes.txt': 'x' });
    const notes: string[] = [];
    await open(folder, { mean: undefined, onNote: (text) => notes.push(text) });
    expect(notes.join('\n')).toContain('1 files are not images');
    expect(notes.join('\n')).toContain('pixels are fed as 0 to 1');
  });
});

describe('rows that name images', () => {
  it('have numbers as labels for mse', async () => {
    const folder = await folderOf({ 'a.png': 0, 'd.csv': 'image,score\na.png,1.5\na.png,-2\n' });
    const dataset = await open(join(folder, 'd.csv'), labelRequest('mse'));
    const batch = await dataset.batch([1, 0], ['target']);
    expect([...batch.keys()]).toEqual(['target']);
    expect(batch.get('target')!.data).toEqual(Float32Array.of(-2, 1.5));
  });

  it('have texts as labels for ctc', async () => {
    const rows = '{"path": "a.png", "text": "ab"}\n{"path": "a.png", "text": "b"}\n';
    const folder = await folderOf({ 'a.png': 0, 'd.jsonl': rows, 'chars.txt': 'a\nb\n' });
    const dictionary = join(folder, 'chars.txt');
    const dataset = await open(join(folder, 'd.jsonl'), { ...labelRequest('ctc'), dictionary });
    const batch = await dataset.batch([0, 1]);
    const labels = BigInt64Array.of(1n, 2n, 2n, 0n);
    expect(batch.get('labels')).toMatchObject({ dims: [2, 2], data: labels });
    expect(batch.get('label_lengths')!.data).toEqual(BigInt64Array.of(2n, 1n));
  });

  it.each<[string, string, Partial<DataRequest>, string]>([
    ['a missing image', 'image,label\na.png,x\nb.png,x\n', {}, 'd.csv:3: the image'],
    ['no column of images', 'a,label\na.png,x\n', {}, 'Name it with `imageField`'],
    ['no column of labels', 'image,b\na.png,x\n', {}, 'Name it with `labelField`'],
    [
      'a character that is unknown',
      'image,text\na.png,ax\n',
      labelRequest('ctc'),
      'd.csv:2: its label holds "x"',
    ],
    [
      'a loss of pairs',
      'image,label\na.png,x\n',
      labelRequest('mnr'),
      'cannot train with the loss mnr',
    ],
  ])('with %s are told by their line', async (_, rows, options, message) => {
    const folder = await folderOf({ 'a.png': 0, 'd.csv': rows, 'chars.txt': 'a\nb\n' });
    const dictionary = join(folder, 'chars.txt');
    const opened = open(join(folder, 'd.csv'), { dictionary, ...options });
    const problem = await opened.catch(({ message: text, hint }) => `${text}\n${hint}`);
    expect(problem).toContain(message);
  });

  it('can leave bad ones out', async () => {
    const rows = 'image,label\na.png,x\nb.png,x\nbad.png,y\n';
    const folder = await folderOf({ 'a.png': 0, 'bad.png': 'x', 'd.csv': rows });
    const dataset = await open(join(folder, 'd.csv'), { skipBadRows: true });
    expect([dataset.size, dataset.skipped]).toEqual([1, 2]);
  });

  describe('whose texts the frames cannot spell', () => {
    /** The data of three images, checked for a model of three frames. */
    async function checked(texts: readonly string[], options: Partial<DataRequest>) {
      const rows = texts.map((text) => `a.png,${text}\n`).join('');
      const files = { 'a.png': 0, 'd.csv': `image,text\n${rows}`, 'chars.txt': 'a\nb\n' };
      const folder = await folderOf(files);
      const dictionary = join(folder, 'chars.txt');
      const request = { ...labelRequest('ctc'), dictionary, ...options };
      const dataset = await open(join(folder, 'd.csv'), request);
      const int64 = (name: string, ...more: string[]) =>
        ({ name, dtype: 'int64', shape: ['batch', ...more] }) as const;
      const notes: string[] = [];
      const needs = {
        ...labelRequest('ctc'),
        inputs: [],
        lossInputs: [int64('labels', 'length'), int64('input_lengths'), int64('label_lengths')],
        output: { name: 'y', dtype: 'float32', shape: ['batch', 3, 3] },
      } as const;
      await checkDataset(dataset, needs, { onNote: (note) => notes.push(note) });
      return { dataset, notes };
    }

    it('are bad rows', async () => {
      const run = () => checked(['ab', 'aab', 'a'], {});
      const { message, hint } = await failure(run, 'invalid-data');
      expect(message).toMatch(
        /a\.png: 3 labels, 1 of them repeated, in 3 frames, expected a frame /,
      );
      expect(hint).toContain('`skipBadRows: true`');
    });

    it('can be left out, and are counted', async () => {
      const { dataset, notes } = await checked(['ab', 'aab', 'b'], { skipBadRows: true });
      expect([dataset.size, dataset.skipped]).toEqual([2, 1]);
      const { data } = (await dataset.batch([0, 1], ['label_lengths'])).get('label_lengths')!;
      expect(data).toEqual(BigInt64Array.of(2n, 1n));
      expect(notes.join()).toMatch(/1 bad row is left out, for the frames cannot spell .*a\.png$/);
    });

    it('are an error where nothing else is left', async () => {
      const run = () => checked(['aab', 'bba', 'aaa'], { skipBadRows: true });
      const { message } = await failure(run, 'invalid-data');
      expect(message).toContain('no sample has frames enough to spell its labels');
    });
  });

  it('cannot train ctc without a dictionary', async () => {
    const folder = await folderOf({ 'a.png': 0, 'd.csv': 'image,text\na.png,a\n' });
    const opened = open(join(folder, 'd.csv'), labelRequest('ctc'));
    await expect(opened).rejects.toThrow('ctc needs the characters');
  });
});
