/** A folder that appears whole or not at all. */
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { OnnxLoraError } from '../errors.js';
import { Claim } from './claim.js';
import { fileError } from './source.js';
import { removeStale, temporaryBeside } from './temporary.js';
import { renameFolder } from './write.js';

/**
 * Lets `fill` write into a folder beside `folder`, which then gets that name. The name is claimed meanwhile.
 * @param replaces a folder of that name, which is removed with all that is in it: the caller has looked
 * @returns what `fill` gives
 * @throws OnnxLoraError those of `fill`, with the folder's own name in them; `output-exists`, `io`
 */
export async function makeFolder<T>(
  folder: string,
  fill: (aside: string) => Promise<T>,
  replaces = false,
): Promise<T> {
  const claim = Claim.unlessHeld(folder);
  const aside = temporaryBeside(folder);
  try {
    removeStale(folder);
    await mkdir(aside);
    const result = await fill(aside);
    await (replaces ? putInPlace : renameFolder)(aside, folder);
    return result;
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    throw named(folder, aside, error);
  } finally {
    claim?.release();
  }
}

/** Of the two renames the second one may fail: then the old folder comes back. */
async function putInPlace(aside: string, folder: string): Promise<void> {
  if (!existsSync(folder)) return await renameFolder(aside, folder);
  const old = temporaryBeside(folder);
  await rename(folder, old);
  try {
    await renameFolder(aside, folder);
  } catch (error) {
    await rename(old, folder);
    throw error;
  }
  await rm(old, { recursive: true, force: true });
}

/** The error with the folder's own name in it. */
function named(folder: string, aside: string, error: unknown): unknown {
  if (!(error instanceof OnnxLoraError)) {
    const isSystem = typeof (error as NodeJS.ErrnoException).syscall === 'string';
    return isSystem ? fileError(folder, error) : error;
  }
  const { code, message, node, hint } = error;
  const told = message.replaceAll(aside, folder);
  return new OnnxLoraError(code, told, {
    node,
    hint: hint?.replaceAll(aside, folder),
    cause: error,
  });
}
