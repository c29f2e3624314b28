/** Biases that train with the adapters: which they are, and the records they had. */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { biasesOf } from '../../../src/adapters/edit/bias.js';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { writeModel } from '../../../src/commands/output.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { openModel, parseModel } from '../../../src/onnx/parse.js';
import { MemorySource } from '../../../src/onnx/source.js';
import { layOut, sizeOf } from '../../../src/training/parameters.js';
import { trainedModel } from '../../../src/training/trained-model.js';
import { insertInto, patchFile } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import {
  body,
  constant,
  model,
  type NodeProto,
  node,
  type TensorProto,
  tensor,
  value,
} from '../../support/models.js';

const folder = temporaryFolder();
const OPTIONS = { rank: 2, blocks: 1 };

interface Parts {
  readonly nodes: readonly NodeProto[];
  readonly initializers?: readonly TensorProto[];
  readonly x?: readonly (number | string)[];
}

/** A model of x [batch, 3] with the weights w [3, 3] and the bias b [3]. */
function layers({ nodes, initializers = [], x = ['batch', 3] }: Parts): Uint8Array {
  return model({
    nodes,
    initializers: [tensor('w', [3, 3]), tensor('b', [3]), ...initializers],
    inputs: [value('x', x)],
    outputs: ['y'],
  });
}

/** The names of the biases that train. */
async function found(bytes: Uint8Array, targets = ['re:.*']): Promise<string[]> {
  const options = { ...OPTIONS, targets };
  const patched = new PatchedModel(parseModel(new MemorySource(await insertInto(bytes, options))));
  return biasesOf(patched, patched.sets[0]!).biases.map(({ name }) => name);
}

describe('the bias of a layer', () => {
  it.each<[string, Parts, string?]>([
    [
      'is added behind it',
      { nodes: [node('MatMul', ['x', 'w'], 'h'), node('Add', ['h', 'b'], 'y')] },
    ],
    [
      'stands first in the sum',
      { nodes: [node('MatMul', ['x', 'w'], 'h'), node('Add', ['b', 'h'], 'y')] },
    ],
    ['is Gemm’s own', { nodes: [node('Gemm', ['x', 'w', 'b'], 'y', { transB: 1 })] }],
    [
      'is the value of a Constant node',
      {
        nodes: [
          constant('c', tensor('', [3])),
          node('MatMul', ['x', 'w'], 'h'),
          node('Add', ['h', 'c'], 'y'),
        ],
      },
      'c',
    ],
    [
      'is a convolution’s own',
      {
        nodes: [node('Conv', ['x', 'k', 'b'], 'y')],
        initializers: [tensor('k', [3, 2, 1, 1])],
        x: ['batch', 2, 'h', 'w'],
      },
    ],
    [
      'is shared by adapted layers',
      {
        nodes: [
          node('MatMul', ['x', 'w'], 'h1'),
          node('Add', ['h1', 'b'], 't'),
          node('MatMul', ['t', 'w'], 'h2'),
          node('Add', ['h2', 'b'], 'y'),
        ],
      },
    ],
  ])('%s', async (_, parts, name = 'b') => {
    expect(await found(layers(parts))).toEqual([name]);
  });

  it.each<[string, Parts]>([
    [
      'is not what is added along another axis',
      { nodes: [node('MatMul', ['w', 'x'], 'h'), node('Add', ['h', 'b'], 'y')], x: [3, 3] },
    ],
    [
      'is not what is added to the pixels of an image',
      {
        nodes: [node('Conv', ['x', 'k'], 'h'), node('Add', ['h', 'b'], 'y')],
        initializers: [tensor('k', [3, 2, 1, 1])],
        x: ['batch', 2, 'h', 3],
      },
    ],
    [
      'is not a value that is computed',
      { nodes: [node('MatMul', ['x', 'w'], 'h'), node('Add', ['h', 'x'], 'y')] },
    ],
    [
      'is not the matrix of a Gemm',
      { nodes: [node('Gemm', ['x', 'w', 'c'], 'y')], initializers: [tensor('c', [1, 3])] },
    ],
  ])('%s', async (_, parts) => {
    const error = await failure(() => found(layers(parts)), 'unsupported');
    expect(error.message).toContain('no adapted layer has a bias');
    expect(error.hint).toContain('`trainBias`');
  });

  it('is refused where it is in the body of a branch', async () => {
    const branch = (initializers: TensorProto[]) =>
      body({
        nodes: [node('MatMul', ['x', 'w'], 'h'), node('Add', ['h', 'own'], 'y')],
        initializers,
        outputs: ['y'],
      });
    const bytes = model({
      nodes: [
        node('If', ['yes'], 'y', {
          then_branch: { graph: branch([tensor('own', [3])]) },
          else_branch: { graph: body({ nodes: [node('Identity', ['x'], 'z')], outputs: ['z'] }) },
        }),
      ],
      initializers: [tensor('w', [3, 3])],
      inputs: [value('x', ['batch', 3]), value('yes', [], 'bool')],
      outputs: ['y'],
    });
    await failure(() => found(bytes), 'unsupported');
  });

  it('is refused where another node or the graph reads it too', async () => {
    const two = layers({
      nodes: [
        node('MatMul', ['x', 'w'], 'h1', {}, 'one'),
        node('Add', ['h1', 'b'], 't'),
        node('MatMul', ['t', 'w2'], 'h2', {}, 'two'),
        node('Add', ['h2', 'b'], 'y', {}, 'other'),
      ],
      initializers: [tensor('w2', [3, 3])],
    });
    const error = await failure(() => found(two, ['one']), 'unsupported');
    expect(error.message).toContain('the bias b is read by other too');
    expect(error).toMatchObject({ node: 'other', hint: expect.stringContaining('Adapt') });
    expect(await found(two)).toEqual(['b']);
  });
});

/** Writes the patched model with its biases at `number`, and gives the path. */
async function trainedTo(path: string, number: number, set?: string): Promise<string> {
  const opened = openModel(path);
  try {
    const patched = new PatchedModel(opened);
    const manifest = patched.chosenSets(set)[0]!;
    const { biases } = biasesOf(patched, manifest);
    const parameters = layOut(
      biases.map(({ name, tensor }) => ({ name, shape: tensor.dims, dtype: 'float32' as const })),
    );
    const forward = { set: manifest, parameters, biases: biases.map(({ name }) => name) };
    const theta = new Float32Array(sizeOf(parameters)).fill(number);
    const output = folder.fresh();
    await writeModel(opened, trainedModel(patched, forward, theta), output, {});
    return output;
  } finally {
    opened.close();
  }
}

const plain = (b: TensorProto) =>
  model({
    nodes: [node('MatMul', ['x', 'w'], 'h', {}, 'layer'), node('Add', ['h', 'b'], 'y')],
    initializers: [tensor('w', [3, 3]), b, tensor('rest', [2])],
    inputs: [value('x', ['batch', 3])],
    outputs: ['y'],
  });

async function patchedFile(base: string): Promise<string> {
  const output = folder.fresh();
  await patchFile(base, output, OPTIONS);
  return output;
}

describe('the record of a trained bias', () => {
  const { rawData: _, ...shell } = tensor('b', [3]);
  it.each<[string, TensorProto]>([
    ['raw bytes', tensor('b', [3])],
    ['half-precision bytes', tensor('b', [3], undefined, 'float16')],
    ['a list of floats', { ...shell, floatData: [0.5, -1, 2], docString: 'of the exporter' }],
  ])('comes back as it was: %s', async (_, record) => {
    const base = folder.write(plain(record));
    const twice = await trainedTo(await trainedTo(await patchedFile(base), 7), 9);
    const trained = openModel(twice);
    expect(trained.graph.initializers.get('b')!.data.kind).toBe('raw');
    trained.close();
    const output = folder.fresh();
    await unpatch(twice, { output });
    expect(sameFiles(output, base)).toBe(true);
  });

  it('comes back as it was: the value of a Constant node', async () => {
    const base = folder.write(
      model({
        nodes: [
          constant('b', tensor('', [3]), 'bias'),
          node('MatMul', ['x', 'w'], 'h', {}, 'layer'),
          node('Add', ['h', 'b'], 'y'),
        ],
        initializers: [tensor('w', [3, 3])],
        inputs: [value('x', ['batch', 3])],
        outputs: ['y'],
      }),
    );
    const twice = await trainedTo(await trainedTo(await patchedFile(base), 7), 9);
    const output = folder.fresh();
    await unpatch(twice, { output });
    expect(sameFiles(output, base)).toBe(true);
  });

  it('comes back as it was, with its data file: external data', async () => {
    const entries = { location: 'b.bin', offset: '0', length: '12' };
    const base = folder.write(
      plain({
        ...shell,
        dataLocation: 1,
        externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
      }),
    );
    const data = join(dirname(base), 'b.bin');
    writeFileSync(data, new Uint8Array(Float32Array.of(1, 2, 3).buffer));
    const trained = await trainedTo(await patchedFile(base), 7);
    const output = folder.fresh();
    await unpatch(trained, { output });
    expect(sameFiles(output, base)).toBe(true);
    expect(sameFiles(join(dirname(output), 'b.bin'), data)).toBe(true);
  });

  it('travels with an adapter file into the base model', async () => {
    const base = folder.write(plain(tensor('b', [3])));
    const trained = await trainedTo(await patchedFile(base), 7);
    const adapter = folder.fresh('adapter.safetensors');
    await extract(trained, { output: adapter });
    const applied = folder.fresh();
    await apply(base, adapter, { output: applied });
    expect(sameFiles(applied, trained)).toBe(true);
  });

  it('is that of one adapter set: a second one cannot train the same bias', async () => {
    const once = await trainedTo(await patchedFile(folder.write(plain(tensor('b', [3])))), 7);
    const both = folder.fresh();
    await patchFile(once, both, { ...OPTIONS, name: 'second' });
    const error = await failure(() => trainedTo(both, 9, 'second'), 'unsupported');
    expect(error.message).toContain('b');
    expect(error.message).toContain('default');
    expect(error.hint).toContain('merge');
  });
});
