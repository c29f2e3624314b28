/** Folders as models are published in them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TemporaryFolder } from './files.js';

/** A new folder with these files; a value that is not text or bytes is written as JSON. */
export function folderWith(
  files: TemporaryFolder,
  contents: Readonly<Record<string, unknown>>,
  name = 'llama',
): string {
  const folder = files.fresh(name);
  for (const [file, content] of Object.entries(contents)) {
    const path = join(folder, file);
    mkdirSync(dirname(path), { recursive: true });
    const isPlain = typeof content === 'string' || content instanceof Uint8Array;
    writeFileSync(path, isPlain ? content : JSON.stringify(content));
  }
  return folder;
}

/** A `genai_config.json` that names the decoder's file. */
export function genaiConfig(filename = 'model.onnx', more: object = {}) {
  return { model: { type: 'llama', decoder: { filename }, ...more } };
}
