import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { MODEL, ofModels } from '../models/reader.js';
import { mustHold, type Reader } from '../reader.js';

/** What patch takes, unpatch gives back. */
export const patchReader: Reader = {
  ...ofModels,
  run: async (folder) => {
    const [model, patched, base] = [MODEL, 'patched.onnx', 'base.onnx'].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    await patch(model, { rank: 4, blocks: 2, name: 'fuzz', output: patched });
    await unpatch(patched, { name: 'fuzz', output: base });
    mustHold(readFileSync(base).equals(readFileSync(model)), 'unpatch gives the same bytes');
  },
};
