/** What readers of models have in common. */
import { type Files, filesOf, type Reader, withFile } from '../reader.js';
import { damageModel } from './damage.js';
import { baseModels, patchedModels } from './seeds.js';

export const MODEL = 'model.onnx';

const asFiles = (models: readonly Uint8Array[]): Files[] =>
  models.map((bytes) => filesOf({ [MODEL]: bytes }));

const mutate: Reader['mutate'] = (files, random) =>
  withFile(files, MODEL, (bytes) => damageModel(bytes, random));

/** Models without adapters. */
export const ofBaseModels: Pick<Reader, 'seeds' | 'mutate'> = {
  seeds: () => asFiles(baseModels()),
  mutate,
};

/** Models with adapters. */
export const ofPatchedModels: Pick<Reader, 'seeds' | 'mutate'> = {
  seeds: async () => asFiles(await patchedModels()),
  mutate,
};

/** Models with and without. */
export const ofModels: Pick<Reader, 'seeds' | 'mutate'> = {
  seeds: async () => asFiles([...baseModels(), ...(await patchedModels())]),
  mutate,
};
