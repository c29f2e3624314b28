import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { imageFolder } from '../../../src/data/images/files.js';

function folderOf(...files: string[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'images-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const file of files) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), '');
  }
  return folder;
}

it('finds images by class and name, deeper folders included', () => {
  const folder = folderOf(
    'dog/b.JPG',
    'dog/a.png',
    'cat/more/x.webp',
    'cat/.hidden.png',
    'note.txt',
  );
  const { images, ignored } = imageFolder(folder);
  const found = images.map(({ path, label }) => [relative(folder, path), label]);
  expect(found).toEqual([
    ['cat/more/x.webp', 'cat'],
    ['dog/a.png', 'dog'],
    ['dog/b.JPG', 'dog'],
  ]);
  expect(ignored).toEqual([]);
});

it('names files in classes that are no images', () => {
  const folder = folderOf('cat/a.png', 'cat/notes.txt');
  expect(imageFolder(folder).ignored).toEqual([join(folder, 'cat/notes.txt')]);
});

it('refuses a folder without classes, and a class without images', () => {
  expect(() => imageFolder(folderOf('a.png'))).toThrow('no folders of classes');
  expect(() => imageFolder(folderOf('cat/a.txt'))).toThrow('cat: the class has no images');
  expect(() => imageFolder('/no/such/folder')).toThrow('does not exist');
});
