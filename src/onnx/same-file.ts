/** Files by what they are, not by what they are called: links of both kinds lead to one. */
import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, extname, isAbsolute, join, relative, resolve, sep } from 'node:path';

/** Whether two paths lead to one file, which need not exist. */
export function isSameFile(a: string, b: string): boolean {
  const [first, second] = [identityOf(a), identityOf(b)];
  if (first !== undefined && first === second) return true;
  return placeOf(a) === placeOf(b);
}

/** Whether writing to `path` would change what is read from `input`, a file or a folder. */
export function isReadFrom(input: string, path: string): boolean {
  return isSameFile(input, path) || isReadInside(input, path) || mayBeNamedIn(input, path);
}

/** The file's identity, if it exists. */
function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    // Not a name, or out of reach: no file that is there.
    return undefined;
  }
}

/** Its path, existing or not: the real name of its folder, and its own name. */
function placeOf(path: string): string {
  const whole = resolve(path);
  return join(realPathOf(dirname(whole)) ?? dirname(whole), basename(whole));
}

function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

// Of a folder of a tokenizer or of adapters: configurations, vocabularies and numbers.
const READ_BESIDE = new Set(['.json', '.txt', '.jinja', '.safetensors', '.bin', '.model']);

// Of a folder with a folder of images for each class.
const READ_BELOW = new Set([
  '.png',
  '.jpg',
  '.jpeg',
  '.webp',
  '.bmp',
  '.gif',
  '.avif',
  '.tif',
  '.tiff',
]);

// Rows of these may name images wherever they are; which, is only known when they are read.
const ROWS = new Set(['.jsonl', '.ndjson', '.json', '.csv', '.tsv', '.parquet']);

/** Nothing that we write is called as an image is. */
function mayBeNamedIn(input: string, path: string): boolean {
  const target = realPathOf(path);
  if (target === undefined || !READ_BELOW.has(extname(target).toLowerCase())) return false;
  return ROWS.has(extname(input).toLowerCase());
}

/** Folders may hold outputs as well: only what is read of them counts. */
function isReadInside(folder: string, path: string): boolean {
  const [real, target] = [realPathOf(folder), realPathOf(path)];
  if (real === undefined || target === undefined || !isFolder(real)) return false;
  const inside = relative(real, target);
  if (inside === '' || isAbsolute(inside) || inside.split(sep)[0] === '..') return false;
  const ending = extname(inside).toLowerCase();
  return inside.includes(sep) ? READ_BELOW.has(ending) : READ_BESIDE.has(ending);
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
