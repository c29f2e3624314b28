/** Adapters as a PEFT folder: exactly PEFT's own layout, and every structure that PEFT cannot say. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { extract } from '../../src/lora/extract.js';
import { temporaryFolder } from '../support/files.js';
import { goldenModel } from '../support/golden.js';
import { goldenCases, ZOO } from '../support/zoo.js';

const folder = temporaryFolder();

function tensorsOf(path: string) {
  const file = openSafetensors(join(path, 'adapter_model.safetensors'));
  const entries = [...file.tensors].map(
    ([name, { dtype, shape }]) => [name, { dtype, shape, bytes: file.read(name) }] as const,
  );
  file.close();
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function configOf(path: string) {
  return JSON.parse(readFileSync(join(path, 'adapter_config.json'), 'utf8'));
}

describe.each(goldenCases)('%s', (name) => {
  it.each(['lora', 'gralora'] as const)(
    'gives PEFT’s %s tensors back, bit for bit',
    async (kind) => {
      const output = folder.fresh('adapter');
      const patched = folder.write(await goldenModel(name, kind));
      const { peft } = await extract(patched, { output });
      expect(peft!.type).toBe(kind);
      const recorded = join(ZOO, name, kind, 'init');
      expect(tensorsOf(output)).toEqual(tensorsOf(recorded));
    },
  );
});
