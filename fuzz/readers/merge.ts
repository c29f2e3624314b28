import { join } from 'node:path';
import { merge } from '../../src/commands/merge.js';
import { MODEL, ofPatchedModels } from '../models/reader.js';
import type { Reader } from '../reader.js';

export const mergeReader: Reader = {
  ...ofPatchedModels,
  run: (folder) =>
    merge(join(folder, MODEL), { verify: false, output: join(folder, 'merged.onnx') }),
};
