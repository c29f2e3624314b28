import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import onnxProto from 'onnx-proto';
import { type Ort, StepTrainer } from '../../src/browser/step-trainer.js';
import { INITIAL_THETA, STEP_MANIFEST_KEY } from '../../src/training/step-format.js';
import { model, node, tensor } from '../../test/support/models.js';
import { damageModel } from '../models/damage.js';
import { MODEL } from '../models/reader.js';
import { damageJsonText } from '../mutate/json.js';
import type { Random } from '../random.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const { ModelProto } = onnxProto.onnx;
const SIZE = 6;

const manifest = {
  version: 1,
  createdBy: 'fuzz',
  data: [{ name: 'x', dtype: 'float32', shape: [1, 2] }],
  state: {
    size: SIZE,
    vectors: [
      { input: 'theta', output: 'theta_next', initial: { initializer: INITIAL_THETA } },
      { input: 'm', output: 'm_next', initial: 0 },
    ],
  },
  scalars: { lr: 'float32: the learning rate of the step' },
  optimizer: { name: 'adamw', betas: [0.9, 0.999], accumulate: 1 },
  outputs: { loss: 'loss', gradientNorm: 'norm' },
  parameters: [{ name: 'a', shape: [2, 3], offset: 0, length: 6 }],
  adapters: [],
  adapterFile: { metadata: { format: 'onnx-lora' }, tensors: { a: 'a' } },
};

/** Step graphs as a page opens them: what runs them is not what is looked at here. */
export const stepManifestReader: Reader = {
  seeds: () => [filesOf({ [MODEL]: stepGraph() })],
  mutate: (files, random) => withFile(files, MODEL, (bytes) => damage(bytes, random)),
  run: async (folder) => {
    const trainer = await StepTrainer.open(idle, new Uint8Array(readFileSync(join(folder, MODEL))));
    trainer.tensors();
    trainer.adapterFile();
  },
};

function stepGraph(): Uint8Array {
  const decoded = ModelProto.decode(
    model({
      nodes: [node('Identity', ['theta'], 'theta_next')],
      initializers: [tensor(INITIAL_THETA, [SIZE])],
      inputs: ['theta'],
      outputs: ['theta_next'],
    }),
  );
  decoded.metadataProps = [{ key: STEP_MANIFEST_KEY, value: JSON.stringify(manifest) }];
  return ModelProto.encode(decoded).finish();
}

function damage(bytes: Uint8Array, random: Random): Uint8Array {
  if (random.chance(0.4)) return damageModel(bytes, random);
  const decoded = ModelProto.decode(bytes);
  const entry = decoded.metadataProps[0]!;
  entry.value = damageJsonText(entry.value ?? '', random);
  return ModelProto.encode(decoded).finish();
}

/** A runtime that runs nothing. */
const idle = {
  InferenceSession: { create: async () => ({}) },
  Tensor: class {
    constructor(
      readonly type: string,
      readonly data: unknown,
      readonly dims: readonly number[],
    ) {}
  },
} as unknown as Ort;
