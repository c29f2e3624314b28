import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { MODEL, ofBaseModels } from '../models/reader.js';
import { mustHold, type Reader } from '../reader.js';

/** As with adapters, for slots. */
export const slotsReader: Reader = {
  ...ofBaseModels,
  run: async (folder) => {
    const [model, slotted, base] = [MODEL, 'slots.onnx', 'base.onnx'].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    await patch(model, { slots: 'optional', output: slotted });
    await unpatch(slotted, { output: base });
    mustHold(readFileSync(base).equals(readFileSync(model)), 'unpatch gives the same bytes');
  },
};
