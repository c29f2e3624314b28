/** Temporary files beside an output, and what killed runs left of them. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { OnnxLoraError } from '../errors.js';
import { isDead, OWNER, ownerToken } from './owner.js';
import { fileError } from './source.js';

/** A new name beside `path` that names its owner. */
export function temporaryBeside(path: string): string {
  const own = `${ownerToken()}.${randomBytes(6).toString('hex')}`;
  return join(dirname(path), `.${shortName(path)}.${own}.tmp`);
}

/** Removes temporary files of `path` whose process is dead; those of others stay. */
export function removeStale(path: string): void {
  const pattern = new RegExp(`^(${OWNER})\\.[0-9a-f]{12}\\.tmp$`);
  const start = `.${shortName(path)}.`;
  for (const name of namesIn(dirname(path))) {
    const owner = name.startsWith(start) && pattern.exec(name.slice(start.length))?.[1];
    if (!owner || !isDead(owner)) continue;
    rmSync(join(dirname(path), name), { recursive: true, force: true });
  }
}

/** A file's name, cut to leave room for what surrounds it: names end at 255 bytes. */
export function shortName(path: string): string {
  const name = basename(path);
  if (Buffer.byteLength(name) <= MAX_NAME) return name;
  return createHash('sha256').update(name).digest('hex').slice(0, 32);
}

const MAX_NAME = 180;

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // Whoever writes there reports what is wrong with it.
    return [];
  }
}

/**
 * A new folder for files that nobody needs later.
 * @throws OnnxLoraError `io` where the system's folder for them is missing or full
 */
export function temporaryFolder(prefix: string): string {
  const parent = tmpdir();
  try {
    return mkdtempSync(join(parent, prefix));
  } catch (error) {
    const { message } = fileError(parent, error);
    throw new OnnxLoraError('io', `no temporary folder can be made: ${message}`, {
      hint: 'Set TMPDIR (on Windows TEMP) to a folder that exists and can be written to.',
      cause: error,
    });
  }
}
