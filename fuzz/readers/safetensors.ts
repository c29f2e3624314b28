import { join } from 'node:path';
import { apply } from '../../src/commands/apply.js';
import { withAdapters } from '../adapters.js';
import { MODEL } from '../models/reader.js';
import { damageSafetensors } from '../mutate/safetensors.js';
import { type Reader, withFile } from '../reader.js';

const ADAPTER = 'own.safetensors';

/** Adapter files of ours, their manifests among them. */
export const safetensorsReader: Reader = {
  seeds: async () => [await withAdapters(ADAPTER)],
  mutate: (files, random) =>
    withFile(files, ADAPTER, (bytes) => damageSafetensors(bytes, random, ['manifest'])),
  run: (folder) =>
    apply(join(folder, MODEL), join(folder, ADAPTER), { output: join(folder, 'out.onnx') }),
};
