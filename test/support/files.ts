/** Files and bytes for tests. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from 'vitest';
import { type ErrorCode, OnnxLoraError } from '../../src/errors.js';

export interface TemporaryFolder {
  readonly path: string;
  /** A path that nothing else has, in a folder of its own. */
  fresh(name?: string): string;
  /** Writes a file and gives its path. */
  write(bytes: Uint8Array, name?: string): string;
}

/** A folder for the tests of one file, removed behind them. */
export function temporaryFolder(): TemporaryFolder {
  let path = '';
  let count = 0;
  beforeAll(() => {
    path = mkdtempSync(join(tmpdir(), 'onnx-lora-'));
  });
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  const folder = {
    get path() {
      return path;
    },
    fresh: (name = 'model.onnx') => {
      const own = join(path, String(++count));
      mkdirSync(own);
      return join(own, name);
    },
    write: (bytes: Uint8Array, name?: string) => {
      const file = folder.fresh(name);
      writeFileSync(file, bytes);
      return file;
    },
  };
  return folder;
}

export function sameFiles(a: string, b: string): boolean {
  return readFileSync(a).equals(readFileSync(b));
}

/** The error of a call that must fail, checked to be one line of ours. */
export async function failure(run: () => unknown, code: ErrorCode): Promise<OnnxLoraError> {
  try {
    await run();
  } catch (error) {
    expect(error).toBeInstanceOf(OnnxLoraError);
    const failed = error as OnnxLoraError;
    expect(failed.code).toBe(code);
    expect(failed.message).not.toContain('\n');
    return failed;
  }
  throw new Error(`expected an error ${code}`);
}
