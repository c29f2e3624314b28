import { join } from 'node:path';
import { extract } from '../../src/commands/extract.js';
import { MODEL, ofPatchedModels } from '../models/reader.js';
import type { Reader } from '../reader.js';

/** Every format, one after the other; the first that refuses ends it. */
export const extractReader: Reader = {
  ...ofPatchedModels,
  run: async (folder) => {
    for (const output of ['own.safetensors', 'runtime.onnx_adapter', 'peft']) {
      await extract(join(folder, MODEL), { output: join(folder, output) });
    }
  },
};
