/** Small models that have, together, most of what models have. */
import { readFileSync } from 'node:fs';
import onnxProto from 'onnx-proto';
import { insertInto, trained } from '../../test/support/adapters.js';
import {
  body,
  constant,
  type FunctionProto,
  type ModelParts,
  model,
  node,
  tensor,
  value,
} from '../../test/support/models.js';

const weights = (...names: readonly string[]) => names.map((name) => tensor(name, [8, 8]));
const x = value('x', ['batch', 8]);

const chain: ModelParts = {
  nodes: [
    node('MatMul', ['x', 'w1.weight'], 'h', {}, '/layers.0/MatMul'),
    node('Add', ['h', 'b'], 'hb', {}, '/layers.0/Add'),
    node('Relu', ['hb'], 'r', {}, '/layers.0/Relu'),
    node('Gemm', ['r', 'w2.weight', 'b'], 'y', { transB: 1, alpha: { float: 0.5 } }, 'second'),
  ],
  initializers: [...weights('w1.weight', 'w2.weight'), tensor('b', [8])],
  inputs: [x],
  outputs: [value('y', ['batch', 8])],
};

const shared: ModelParts = {
  nodes: [
    node('MatMul', ['x', 'w'], 'a', {}, 'n'),
    node('MatMul', ['a', 'w'], 'b'),
    node('Transpose', ['w'], 'wt', { perm: [1, 0] }),
    node('MatMul', ['b', 'wt'], 'c', {}, 'n'),
    node('Identity', ['w'], 'wi'),
    node('com.microsoft:FusedMatMul', ['c', 'wi'], 'y', { transB: 1 }, 'fused'),
  ],
  initializers: weights('w'),
  inputs: [x],
  outputs: ['y'],
};

/** Two branches whose nodes and values have equal names. */
const branches: ModelParts = {
  nodes: [
    constant('condition', tensor('', [], [1], 'bool')),
    node('If', ['condition'], 'z', {
      then_branch: { graph: branch('MatMul') },
      else_branch: { graph: branch('Gemm') },
    }),
    node('MatMul', ['z', 'outer'], 'y', {}, 'layer'),
  ],
  initializers: weights('outer', 'w'),
  inputs: [x],
  outputs: ['y'],
};

function branch(opType: string) {
  return body({
    nodes: [node(opType, ['x', 'w'], 'h', {}, 'layer'), node('Add', ['h', 'bias'], 'out')],
    initializers: [tensor('bias', [8])],
    outputs: ['out'],
  });
}

const loop: ModelParts = {
  nodes: [
    node('Loop', ['count', '', 'x'], ['y'], {
      body: {
        graph: body({
          nodes: [
            node('MatMul', ['state', 'w'], 'next', {}, 'layer'),
            node('Identity', ['go'], 'still'),
          ],
          inputs: [value('i', [], 'int64'), value('go', [], 'bool'), value('state', ['batch', 8])],
          outputs: [value('still', [], 'bool'), value('next', ['batch', 8])],
        }),
      },
    }),
  ],
  initializers: [...weights('w'), tensor('count', [], [2], 'int64')],
  inputs: [x],
  outputs: ['y'],
};

const block: FunctionProto = {
  name: 'Block',
  domain: 'own',
  input: ['a', 'w'],
  output: ['c'],
  attribute: ['axis'],
  opsetImport: [{ domain: '', version: 17 }],
  node: [node('MatMul', ['a', 'w'], 'b'), node('Softmax', ['b'], 'c', { axis: -1 })],
};

const functions: ModelParts = {
  nodes: [
    node('own:Block', ['x', 'w1'], 'h', { axis: 1 }, 'first'),
    node('own:Block', ['h', 'w2'], 'y', {}, 'second'),
    node('MatMul', ['y', 'w2'], 'z', {}, 'third'),
  ],
  initializers: weights('w1', 'w2'),
  inputs: [x],
  outputs: ['z'],
  functions: [block],
  domains: ['own'],
};

const quantized: ModelParts = {
  opset: 21,
  nodes: [
    node('DequantizeLinear', ['q', 'scale', 'zero'], 'w', { axis: 1 }),
    node('MatMul', ['x', 'w'], 'h', {}, 'dequantized'),
    node('com.microsoft:MatMulNBits', ['h', 'packed', 'scales'], 'y', {
      ...{ K: 8, N: 8, bits: 4, block_size: 16 },
    }),
  ],
  initializers: [
    tensor('q', [8, 8], undefined, 'int8'),
    tensor('scale', [8]),
    tensor('zero', [8], undefined, 'int8'),
    tensor(
      'packed',
      [8, 1, 8],
      Float64Array.from({ length: 64 }, (_, i) => i),
      'uint8',
    ),
    tensor('scales', [8]),
  ],
  inputs: [x],
  outputs: ['y'],
};

const half: ModelParts = {
  nodes: [
    node('Cast', ['w'], 'wc', { to: onnxProto.onnx.TensorProto.DataType.FLOAT }),
    node('MatMul', ['x', 'wc'], 'h', {}, 'cast'),
    node('Conv', ['image', 'kernel'], 'c', { kernel_shape: [1, 1] }, 'conv'),
    node('Slice', ['c', 'starts', 'ends'], 'y'),
  ],
  initializers: [
    tensor('w', [8, 8], undefined, 'float16'),
    tensor('kernel', [8, 8, 1, 1]),
    tensor('starts', [1], [0], 'int64'),
    tensor('ends', [1], [2 ** 62], 'int64'),
  ],
  inputs: [x, value('image', [1, 8, 'h', 'w2'])],
  outputs: ['h', 'y'],
};

const old: ModelParts = { ...chain, opset: 8, irVersion: 3 };

const MLP = new URL('../../test/fixtures/zoo/mlp-regression/model.onnx', import.meta.url);

/** Models without adapters. */
export function baseModels(): readonly Uint8Array[] {
  const parts = [chain, shared, branches, loop, functions, quantized, half, old];
  return [...parts.map((one) => model(one)), readFileSync(MLP)];
}

/** Models with adapters of all structures, a second set, a head. */
export async function patchedModels(): Promise<readonly Uint8Array[]> {
  const small = { rank: 4, blocks: 2, factors: trained } as const;
  const once = await Promise.all([
    insertInto(model(chain), small),
    insertInto(model(shared), { ...small, structure: 'global', hybrid: 2 }),
    insertInto(model(branches), { ...small, structure: 'diagonal' }),
    insertInto(model(quantized), small),
    insertInto(model(old), small),
  ]);
  const twice = await insertInto(once[0]!, { ...small, name: 'another' });
  const withHead = await insertInto(model(chain), {
    ...small,
    extras: { head: { plan: { classes: 3, pooling: 'none' }, seed: 1 } },
  });
  return [...once, twice, withHead];
}
