import { join } from 'node:path';
import { apply } from '../../src/commands/apply.js';
import { withAdapters } from '../adapters.js';
import { damageModel } from '../models/damage.js';
import { MODEL } from '../models/reader.js';
import { type Reader, withFile } from '../reader.js';

const ADAPTER = 'own.safetensors';

/** Good adapters for a damaged model. */
export const applyReader: Reader = {
  seeds: async () => [await withAdapters(ADAPTER)],
  mutate: (files, random) => withFile(files, MODEL, (bytes) => damageModel(bytes, random)),
  run: (folder) =>
    apply(join(folder, MODEL), join(folder, ADAPTER), { output: join(folder, 'out.onnx') }),
};
