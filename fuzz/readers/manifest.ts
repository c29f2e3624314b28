import { join } from 'node:path';
import onnxProto from 'onnx-proto';
import { inspect } from '../../src/commands/inspect.js';
import { merge } from '../../src/commands/merge.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { OnnxLoraError } from '../../src/errors.js';
import { MODEL, ofPatchedModels } from '../models/reader.js';
import { damageJsonText } from '../mutate/json.js';
import type { Random } from '../random.js';
import { type Reader, withFile } from '../reader.js';

const { ModelProto } = onnxProto.onnx;

/** Adapters that the model has otherwise than its manifest says. */
export const manifestReader: Reader = {
  seeds: ofPatchedModels.seeds,
  mutate: (files, random) => withFile(files, MODEL, (bytes) => damageManifest(bytes, random)),
  run: async (folder) => {
    const model = join(folder, MODEL);
    const refusals: OnnxLoraError[] = [];
    const operations = [
      () => inspect(model),
      () => unpatch(model, { output: join(folder, 'base.onnx') }),
      () => merge(model, { verify: false, output: join(folder, 'merged.onnx') }),
    ];
    for (const operation of operations) {
      await operation().catch((error) => {
        if (!(error instanceof OnnxLoraError)) throw error;
        refusals.push(error);
      });
    }
    if (refusals[0]) throw refusals[0];
  },
};

function damageManifest(bytes: Uint8Array, random: Random): Uint8Array {
  const decoded = ModelProto.decode(bytes);
  const entry = random.pick(decoded.metadataProps);
  entry.value = damageJsonText(entry.value ?? '', random);
  return ModelProto.encode(decoded).finish();
}
