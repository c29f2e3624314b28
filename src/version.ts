import { readFileSync } from 'node:fs';

// package.json is two levels above the compiled file, and one above this source file.
function readVersion(): string {
  for (const up of ['../package.json', '../../package.json']) {
    try {
      const manifest = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'));
      if (manifest.name === 'onnx-lora') return manifest.version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  throw new Error('package.json of onnx-lora was not found');
}

/** The version of this package. */
export const version: string = readVersion();
