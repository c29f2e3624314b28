/** Files of a folder by names that are not trusted. */
import { type Dirent, existsSync, readdirSync, realpathSync } from 'node:fs';
import { join, relative } from 'node:path';
import { OnnxLoraError } from '../../errors.js';
import { leavesFolder } from '../../onnx/external.js';
import { fileError } from '../../onnx/source.js';
import { readWholeFile } from '../whole-file.js';

/**
 * The path of a file in a folder.
 * @param name relative to the folder
 * @throws OnnxLoraError `invalid-data` where the name or a link leads out of the folder; `file-not-found`
 */
export function pathInside(folder: string, name: string): string {
  const path = join(folder, name);
  if (name === '' || name.includes('\0') || leavesFolder(name)) throw outside(path, folder);
  if (leavesFolder(relative(realpathSync(folder), realPath(path)))) throw outside(path, folder);
  return path;
}

/** Whether a folder has a file or link of this name. */
export function has(folder: string, name: string): boolean {
  return existsSync(join(folder, name));
}

/** The names of files, and of links to whatever they lead to, in a folder or one below it. */
export function filesIn(folder: string, below = ''): string[] {
  const isShown = (entry: Dirent) => !entry.isDirectory() && !entry.name.startsWith('.');
  try {
    const entries = readdirSync(join(folder, below), { withFileTypes: true });
    const names = entries.filter(isShown).map(({ name }) => name);
    return names.map((name) => (below === '' ? name : `${below}/${name}`)).sort();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (below !== '' && (code === 'ENOENT' || code === 'ENOTDIR')) return [];
    throw fileError(join(folder, below), error);
  }
}

/** Lists of classes may be long. */
const MAX_CONFIG_BYTES = 2 ** 24;

export type Json = Readonly<Record<string, unknown>>;

/**
 * A configuration file of a folder.
 * @throws OnnxLoraError `invalid-data`, and those of reading
 */
export function readConfig(folder: string, name: string): Json {
  const path = pathInside(folder, name);
  const text = readWholeFile(path, MAX_CONFIG_BYTES).toString();
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // Told below.
  }
  throw new OnnxLoraError('invalid-data', `${path} is not a JSON object`, {
    hint: 'Fetch it again from where the model comes from.',
  });
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw fileError(path, error);
  }
}

function outside(path: string, folder: string): OnnxLoraError {
  return new OnnxLoraError('invalid-data', `${path} leads out of its folder`, {
    hint: `Only files inside a model's folder are read. Where they are links, as in a download cache, copy what they lead to: cp -rL ${folder} COPY`,
  });
}
