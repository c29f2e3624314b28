import { join } from 'node:path';
import { apply } from '../../src/commands/apply.js';
import { withAdapters } from '../adapters.js';
import { MODEL } from '../models/reader.js';
import { damageJsonText } from '../mutate/json.js';
import { damageSafetensors } from '../mutate/safetensors.js';
import { type Reader, withFile } from '../reader.js';

const FOLDER = 'peft';

/** Folders of PEFT: the config, the weights, or both. */
export const peftReader: Reader = {
  seeds: async () => [await withAdapters(FOLDER)],
  mutate: (files, random) => {
    const kind = random.below(3);
    let damaged = files;
    if (kind !== 1) {
      damaged = withFile(damaged, `${FOLDER}/adapter_config.json`, (bytes) =>
        Buffer.from(damageJsonText(Buffer.from(bytes).toString(), random)),
      );
    }
    if (kind !== 0) {
      damaged = withFile(damaged, `${FOLDER}/adapter_model.safetensors`, (bytes) =>
        damageSafetensors(bytes, random),
      );
    }
    return damaged;
  },
  run: (folder) =>
    apply(join(folder, MODEL), join(folder, FOLDER), { output: join(folder, 'out.onnx') }),
};
