import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkpointFile, readCheckpoint, writeCheckpoint } from '../../src/training/checkpoint.js';
import { damageSafetensors } from '../mutate/safetensors.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const FILE = 'checkpoint.safetensors';
const SIZE = 12;
const NAMES = ['theta', 'm', 'v'];

/** Where a run stood. */
export const checkpointReader: Reader = {
  seeds: async () => {
    const folder = mkdtempSync(join(tmpdir(), 'onnx-lora-seeds-'));
    const vectors = new Map([...NAMES, 'best'].map((name) => [name, new Float32Array(SIZE)]));
    const losses = { first: 1, last: 0.5, best: 0.5 };
    const evaluation = { step: 3, eval: { loss: 0.5 } };
    await writeCheckpoint(folder, {
      progress: {
        ...{ version: 1, step: 3, settings: { lr: 0.1, loss: 'mse' }, losses, evaluation },
        best: { step: 3, loss: 0.5, since: 0 },
      },
      vectors,
    });
    const bytes = readFileSync(checkpointFile(folder));
    rmSync(folder, { recursive: true });
    return [filesOf({ [FILE]: bytes })];
  },
  mutate: (files, random) =>
    withFile(files, FILE, (bytes) => damageSafetensors(bytes, random, ['progress'])),
  run: (folder) => readCheckpoint(folder, NAMES, SIZE),
};
