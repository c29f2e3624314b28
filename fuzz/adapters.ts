/** Files of adapters for the seeds, in every format. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { extract } from '../src/commands/extract.js';
import { MODEL } from './models/reader.js';
import { baseModels, patchedModels } from './models/seeds.js';
import type { Files } from './reader.js';

/** The first base model beside its adapters, extracted to `name`: a file, or a folder of PEFT. */
export async function withAdapters(name: string): Promise<Files> {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-lora-seeds-'));
  try {
    const patched = join(folder, 'patched.onnx');
    writeFileSync(patched, (await patchedModels())[0]!);
    await extract(patched, { output: join(folder, name) });
    return new Map([[MODEL, baseModels()[0]!], ...filesAt(folder, name)]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function filesAt(folder: string, name: string): [string, Uint8Array][] {
  const isFile = name.includes('.');
  const names = isFile ? [name] : readdirSync(join(folder, name)).map((one) => `${name}/${one}`);
  return names.map((one) => [one, readFileSync(join(folder, one))]);
}
