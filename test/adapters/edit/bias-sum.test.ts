/** Adapters of layers whose bias is added by a node of its own: where they join, and that they start exact. */
import { readFileSync } from 'node:fs';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { biasesOf } from '../../../src/adapters/edit/bias.js';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { foldAdapters } from '../../../src/commands/merge.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { type InsertOptions, insertInto, randomNumbers, trained } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
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
import { expectClose, expectSame, feed, run } from '../../support/run.js';
import { parse } from '../../support/wire.js';

const folder = temporaryFolder();
const OPTIONS: InsertOptions = { rank: 2, blocks: 1, targets: ['all'] };
const levels = ['disabled', 'basic', 'extended', 'all'] as const;

interface Parts {
  readonly nodes: readonly NodeProto[];
  readonly initializers?: readonly TensorProto[];
  readonly x?: readonly (number | string)[];
}

/** A model that reads x [batch, 4] and has the weight w [4, 4] and the bias b [4]. */
function layers({ nodes, initializers = [], x = ['batch', 4] }: Parts): Uint8Array {
  return model({
    opset: 17,
    nodes,
    initializers: [tensor('w', [4, 4]), tensor('b', [4]), ...initializers],
    inputs: [value('x', x)],
    outputs: ['y'],
  });
}

/** Whether the adapter of the first layer joins behind the Add of its bias. */
async function joinsBehind(bytes: Uint8Array): Promise<boolean> {
  const { sites } = new PatchedModel(parse(await insertInto(bytes, OPTIONS)));
  return sites[0]!.site.product !== undefined;
}

const matMul = node('MatMul', ['x', 'w'], 'h');
const add = (bias: string, output = 'y') => node('Add', ['h', bias], output);
const image = { x: ['batch', 4, 'height', 'width'], kernel: tensor('k', [4, 4, 1, 1]) } as const;

describe('an adapter joins behind the bias', () => {
  it.each<[string, Parts]>([
    ['of a MatMul', { nodes: [matMul, add('b')] }],
    ['that stands first', { nodes: [matMul, node('Add', ['b', 'h'], 'y')] }],
    ['of one number', { nodes: [matMul, add('c')], initializers: [tensor('c', [1])] }],
    ['without axes', { nodes: [matMul, add('c')], initializers: [tensor('c', [])] }],
    [
      'that is a row behind a Gemm',
      { nodes: [node('Gemm', ['x', 'w'], 'h'), add('c')], initializers: [tensor('c', [1, 4])] },
    ],
    [
      'that is a column behind a weight on the left',
      {
        nodes: [node('MatMul', ['w', 'x'], 'h'), add('c')],
        initializers: [tensor('c', [4, 1])],
        x: [4, 'n'],
      },
    ],
    [
      'of a convolution',
      {
        nodes: [node('Conv', ['x', 'k'], 'h'), add('c')],
        initializers: [image.kernel, tensor('c', [4, 1, 1])],
        x: image.x,
      },
    ],
    ['of a Constant node', { nodes: [constant('c', tensor('', [4])), matMul, add('c')] }],
    ['that is cast', { nodes: [node('Cast', ['b'], 'c', { to: 1 }), matMul, add('c')] }],
  ])('%s', async (_, parts) => {
    expect(await joinsBehind(layers(parts))).toBe(true);
  });
});

describe('an adapter joins the layer itself', () => {
  const sequence = ['batch', 'length', 4];
  const norm = (input: string) => node('LayerNormalization', [input, 'g'], 'y');
  const g = tensor('g', [4]);
  it.each<[string, Parts]>([
    ['without a bias', { nodes: [node('MatMul', ['x', 'w'], 'y')] }],
    ['where the sum is one of two values', { nodes: [matMul, add('x')] }],
    [
      'where others read its output',
      { nodes: [matMul, add('b', 'z'), node('Mul', ['h', 'z'], 'y')] },
    ],
    [
      'where what is added may give a vector an axis',
      { nodes: [matMul, add('c')], initializers: [tensor('c', [1, 4])] },
    ],
    [
      'where what is added has rows',
      {
        nodes: [node('Gemm', ['x', 'w'], 'h'), add('c')],
        initializers: [tensor('c', [3, 4])],
        x: [3, 4],
      },
    ],
    [
      'where what is added lies along another axis',
      { nodes: [node('MatMul', ['w', 'x'], 'h'), add('b')], x: [4, 4] },
    ],
    [
      'where the runtime fuses the sum into a LayerNormalization',
      { nodes: [matMul, add('b', 's'), norm('s')], initializers: [g], x: sequence },
    ],
    [
      'where the runtime fuses the bias and a residual into a LayerNormalization',
      {
        nodes: [matMul, add('b', 's'), node('Add', ['x', 's'], 't'), norm('t')],
        initializers: [g],
        x: sequence,
      },
    ],
    [
      'where it does so when what is left of a Dropout is gone',
      {
        nodes: [
          ...[matMul, add('b', 's'), node('Identity', ['s'], 'i'), node('Add', ['i', 'x'], 't')],
          norm('t'),
        ],
        initializers: [g],
        x: sequence,
      },
    ],
  ])('%s', async (_, parts) => {
    expect(await joinsBehind(layers(parts))).toBe(false);
  });

  it('where the bias is added in the body of a branch', async () => {
    const branch = body({ nodes: [add('b', 'z')], outputs: ['z'] });
    const nodes = [
      matMul,
      node('If', ['yes'], 'y', { then_branch: { graph: branch }, else_branch: { graph: branch } }),
    ];
    const bytes = model({
      nodes,
      initializers: [tensor('w', [4, 4]), tensor('b', [4])],
      inputs: [value('x', ['batch', 4]), value('yes', [], 'bool')],
      outputs: ['y'],
    });
    expect(await joinsBehind(bytes)).toBe(false);
  });
});

const WIDTH = 384;
const dense = (name: string, input: string, output: string) => [
  node('MatMul', [input, `${name}.w`], `${name}.product`, {}, name),
  node('Add', [`${name}.product`, `${name}.b`], output),
];
const vector = (name: string, seed: number) => tensor(name, [WIDTH], randomNumbers(seed, WIDTH));
const matrix = (name: string, seed: number) =>
  tensor(name, [WIDTH, WIDTH], randomNumbers(seed, WIDTH * WIDTH, 0.1));

/** Two layers with Gelu between them, a residual and LayerNormalization, in front or behind. */
function block(x: readonly (number | string)[], normalizedFirst: boolean): Uint8Array {
  const normalize = (input: string, output: string) =>
    node('LayerNormalization', [input, 'norm.w', 'norm.b'], output);
  const nodes = [
    ...(normalizedFirst ? [normalize('x', 'n')] : []),
    ...dense('up', normalizedFirst ? 'n' : 'x', 'u'),
    node('Div', ['u', 'root'], 'u.scaled'),
    node('Erf', ['u.scaled'], 'u.erf'),
    node('Add', ['u.erf', 'one'], 'u.share'),
    node('Mul', ['u', 'u.share'], 'u.twice'),
    node('Mul', ['u.twice', 'half'], 'gelu'),
    ...dense('down', 'gelu', 'd'),
    node('Add', ['d', 'x'], normalizedFirst ? 'y' : 's'),
    ...(normalizedFirst ? [] : [normalize('s', 'y')]),
  ];
  return model({
    opset: 17,
    nodes,
    initializers: [
      ...[matrix('up.w', 1), matrix('down.w', 2), vector('up.b', 3), vector('down.b', 4)],
      ...[vector('norm.w', 5), vector('norm.b', 6)],
      ...[tensor('root', [], [Math.SQRT2]), tensor('one', [], [1]), tensor('half', [], [0.5])],
    ],
    inputs: [value('x', x)],
    outputs: ['y'],
  });
}

describe('a block of a transformer starts exact at every optimization level', () => {
  const x = { x: feed([2, 5, WIDTH], randomNumbers(9, 10 * WIDTH)) };
  it.each([
    ['fixed sizes', [2, 5, WIDTH], 4],
    ['fixed sizes, one block', [2, 5, WIDTH], 1],
    ['open sizes, one block', ['batch', 'length', WIDTH], 1],
  ] as const)('%s', async (_, shape, blocks) => {
    for (const normalizedFirst of [true, false]) {
      const bytes = block(shape, normalizedFirst);
      const patched = await insertInto(bytes, { blocks, rank: 4, targets: ['all'] });
      for (const level of levels)
        expectSame(await run(patched, x, level), await run(bytes, x, level));
    }
  });
});

const bytes = layers({ nodes: [matMul, add('b')] });
const x = { x: feed([3, 4], randomNumbers(1, 12)) };

/** The same as an earlier version patched it: the bias is added to the output of the adapter. */
async function patchedInFront(options: InsertOptions): Promise<Uint8Array> {
  const withoutBias = layers({ nodes: [node('MatMul', ['x', 'w'], 'y')] });
  return withBias(await insertInto(withoutBias, options));
}

function withBias(model: Uint8Array): Uint8Array {
  const decoded = onnxProto.onnx.ModelProto.decode(model);
  decoded.graph!.node!.push(node('Add', ['y', 'b'], 'sum'));
  decoded.graph!.output![0]!.name = 'sum';
  return onnxProto.onnx.ModelProto.encode(decoded).finish();
}

describe('a layer with its bias below the adapter', () => {
  const options = { ...OPTIONS, factors: trained };

  it('may be in the body of a branch', async () => {
    const branch = body({ nodes: [matMul, add('b', 'z')], outputs: ['z'] });
    const other = body({ nodes: [node('Identity', ['x'], 'n')], outputs: ['n'] });
    const branches = { then_branch: { graph: branch }, else_branch: { graph: other } };
    const inBranch = model({
      nodes: [node('If', ['yes'], 'y', branches)],
      initializers: [tensor('w', [4, 4]), tensor('b', [4])],
      inputs: [value('x', ['batch', 4]), value('yes', [], 'bool')],
      outputs: ['y'],
    });
    expect(await joinsBehind(inBranch)).toBe(true);
    const feeds = { ...x, yes: feed([], [1], 'bool') };
    const expected = await run(await insertInto(bytes, options), x);
    const patched = folder.write(await insertInto(inBranch, options));
    expectClose(await run(patched, feeds), expected, 1e-6);
    const base = folder.fresh();
    await unpatch(patched, { output: base });
    expect(readFileSync(base).equals(inBranch)).toBe(true);
  });

  it('computes the same merged, and unpatched it is the same file', async () => {
    const patched = folder.write(await insertInto(bytes, options));
    const [merged, base] = [folder.fresh(), folder.fresh()];
    await foldAdapters(patched, { output: merged });
    expectClose(await run(merged, x), await run(patched, x), 1e-6);
    await unpatch(patched, { output: base });
    expect(readFileSync(base).equals(bytes)).toBe(true);
  });

  it('takes another set on top, and either can be taken out', async () => {
    const other = { ...options, name: 'other', factors: trained };
    const both = folder.write(await insertInto(await insertInto(bytes, options), other));
    const { sites } = new PatchedModel(parse(readFileSync(both)));
    expect(sites.map(({ target }) => target.outputs)).toEqual([['h'], ['h']]);
    for (const name of ['default', 'other']) {
      const output = folder.fresh();
      await unpatch(both, { output, name });
      expectClose(await run(output, x), await run(await insertInto(bytes, options), x), 1e-6);
      const base = folder.fresh();
      await unpatch(output, { output: base });
      expect(readFileSync(base).equals(bytes)).toBe(true);
    }
  });

  it('is refused where the manifest names another product', async () => {
    const text = Buffer.from(await insertInto(bytes, options)).toString('latin1');
    const changed = Buffer.from(text.replace('"product":"h"', '"product":"x"'), 'latin1');
    const error = await failure(() => new PatchedModel(parse(changed)), 'invalid-manifest');
    expect(error.message).toContain('does not add a bias to x');
  });
});

describe('a layer with its bias above the adapter, as earlier versions patched it', () => {
  const options = { ...OPTIONS, factors: trained };

  it('computes the same, and unpatched it is the same file', async () => {
    const earlier = await patchedInFront(options);
    const { y } = await run(await insertInto(bytes, options), x);
    expectClose({ y: (await run(earlier, x)).sum! }, { y: y! }, 1e-6);
    const [merged, base] = [folder.fresh(), folder.fresh()];
    await foldAdapters(folder.write(earlier), { output: merged });
    expectClose(await run(merged, x), await run(earlier, x), 1e-6);
    await unpatch(folder.write(earlier), { output: base });
    const expected = withBias(layers({ nodes: [node('MatMul', ['x', 'w'], 'y')] }));
    expect(readFileSync(base).equals(expected)).toBe(true);
  });

  it('takes another set on top of the first, below the bias', async () => {
    const both = await insertInto(await patchedInFront(options), { ...options, name: 'other' });
    const patched = new PatchedModel(parse(both));
    expect(patched.sites.map(({ site }) => site.product)).toEqual([undefined, undefined]);
    expect(biasesOf(patched, patched.sets[0]!).biases.map(({ name }) => name)).toEqual(['b']);
  });
});
