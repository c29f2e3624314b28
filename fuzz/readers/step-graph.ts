import { join } from 'node:path';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { resolveTrainOptions } from '../../src/commands/options/train.js';
import { ExternalFiles } from '../../src/onnx/external.js';
import { openModel } from '../../src/onnx/parse.js';
import { TensorReader } from '../../src/onnx/tensor.js';
import { buildForward } from '../../src/training/forward.js';
import { buildStepGraph } from '../../src/training/step-graph.js';
import { insertInto } from '../../test/support/adapters.js';
import { type ModelParts, model, node, tensor, value } from '../../test/support/models.js';
import { MODEL, ofPatchedModels } from '../models/reader.js';
import { damageStructure } from '../models/structure.js';
import { filesOf, type Reader, withFile } from '../reader.js';

const options = resolveTrainOptions({ data: 'none', loss: 'mse' });

const layer = node('MatMul', ['x', 'w'], 'h', {}, 'layer');
const shape = (name: string, dims: readonly number[]) => tensor(name, [dims.length], dims, 'int64');

/** Behind an adapted layer: attention of a kind, and a picture with its windows. */
const parts: readonly ModelParts[] = [
  {
    nodes: [
      layer,
      node('Add', ['h', 'b'], 'hb'),
      node('Gelu', ['hb'], 'g'),
      node('Reshape', ['g', 'heads'], 'q'),
      node('Transpose', ['q'], 'k', { perm: [0, 2, 1] }),
      node('MatMul', ['q', 'k'], 's'),
      node('Softmax', ['s'], 'p'),
      node('MatMul', ['p', 'q'], 'a'),
      node('Reshape', ['a', 'flat'], 'f'),
      node('LayerNormalization', ['f', 'b', 'b'], 'y'),
    ],
    initializers: [
      ...[tensor('w', [8, 8]), tensor('b', [8])],
      ...[shape('heads', [2, 2, 4]), shape('flat', [2, 8])],
    ],
    inputs: [value('x', [2, 8])],
    outputs: [value('y')],
    opset: 20,
  },
  {
    nodes: [
      layer,
      node('Reshape', ['h', 'picture'], 'i'),
      node('Conv', ['i', 'kernel'], 'c', { pads: [1, 1, 1, 1] }),
      node('Relu', ['c'], 'r'),
      node('MaxPool', ['r'], 'pooled', { kernel_shape: [2, 2] }),
      node('Squeeze', ['pooled', 'axes'], 'z'),
      node('Slice', ['z', 'one', 'two', 'one'], 't'),
      node('Concat', ['z', 't'], 'y', { axis: 1 }),
    ],
    initializers: [
      ...[tensor('w', [8, 8]), tensor('kernel', [3, 2, 3, 3]), shape('picture', [2, 2, 2, 2])],
      ...[shape('axes', [2, 3]), shape('one', [1]), shape('two', [2])],
    ],
    inputs: [value('x', [2, 8])],
    outputs: [value('y')],
    opset: 17,
  },
];

async function seeds() {
  const patched = parts.map((one) =>
    insertInto(model(one), { rank: 2, blocks: 2, targets: ['layer'] }),
  );
  return (await Promise.all(patched)).map((bytes) => filesOf({ [MODEL]: bytes }));
}

/** The step of training: the forward pass, its derivative and the optimizer. */
export const stepGraphReader: Reader = {
  seeds,
  mutate: (files, random) =>
    withFile(files, MODEL, (bytes) =>
      random.chance(0.1)
        ? ofPatchedModels.mutate(files, random).get(MODEL)!
        : damageStructure(bytes, random),
    ),
  run: async (folder) => {
    const opened = openModel(join(folder, MODEL));
    const files = new ExternalFiles(opened);
    try {
      const patched = new PatchedModel(opened);
      const sizes = new Map([['batch', 2]]);
      const forward = await buildForward(patched, new TensorReader(opened, files), {
        loss: 'mse',
        sizes,
        rewrite: { fused: true },
      });
      await buildStepGraph(forward, { ...options, fused: true });
    } finally {
      files.close();
      opened.close();
    }
  },
};
