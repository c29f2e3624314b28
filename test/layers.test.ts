/** Holds the table of rooms in CONTRIBUTING.md against the imports of the code. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** A row of the table: a folder, or files that stand in `src` itself. */
interface Room {
  readonly name: string;
  has(file: string): boolean;
}

/** The rooms in the order of the table: each imports only from those above it. */
function roomsOf(contributing: string): Room[] {
  const rows = contributing.matchAll(/^\| (`src\/.+?`) \|/gm);
  return [...rows].map(([, cell]) => {
    const paths = [...cell!.matchAll(/`(src\/[^`]+)`/g)].map(([, path]) => path!);
    return {
      name: paths.join(', '),
      has: (file) => paths.some((path) => file === path || file.startsWith(`${path}/`)),
    };
  });
}

interface Import {
  readonly from: string;
  readonly to: string;
}

/** Every import of the folder, those of types and those that wait for a call among them. */
function importsOf(folder: string): Import[] {
  return sourceFiles(folder).flatMap((from) => {
    const text = readFileSync(join(root, from), 'utf8');
    const { importedFiles } = ts.preProcessFile(text, true, true);
    return importedFiles
      .filter(({ fileName }) => fileName.startsWith('.'))
      .map(({ fileName }) => ({ from, to: join(dirname(from), fileName.replace(/\.js$/, '.ts')) }));
  });
}

function sourceFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return sourceFiles(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

const rooms = roomsOf(readFileSync(join(root, 'CONTRIBUTING.md'), 'utf8'));
const imports = importsOf('src');

/** The place of the narrowest room that has the file; -1 where none has. */
function placeOf(file: string): number {
  const found = rooms
    .filter((room) => room.has(file))
    .sort((a, b) => b.name.length - a.name.length);
  return found[0] ? rooms.indexOf(found[0]) : -1;
}

describe('the rooms of src', () => {
  test('have a place for every file', () => {
    expect(sourceFiles('src').filter((file) => placeOf(file) < 0)).toEqual([]);
  });

  test('all have files', () => {
    const files = sourceFiles('src');
    const isEmpty = (place: number) => !files.some((file) => placeOf(file) === place);
    expect(rooms.filter((_, place) => isEmpty(place)).map(({ name }) => name)).toEqual([]);
  });

  test('import only from rooms above them', () => {
    const upward = imports.filter(({ from, to }) => placeOf(to) > placeOf(from));
    expect(upward.map(({ from, to }) => `${from} imports ${to}`)).toEqual([]);
  });

  test('know nothing of the command line', () => {
    expect(imports.filter(({ to }) => !to.startsWith('src/'))).toEqual([]);
  });
});
