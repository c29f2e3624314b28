/** Weights that the file computes of constants: integers times a scale, and what quantizers write around them. */
import { describe, expect, it } from 'vitest';
import { inspect } from '../../src/commands/inspect.js';
import { merge } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { openModel } from '../../src/onnx/parse.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { constant, model, type NodeProto, node, tensor, value } from '../support/models.js';
import { expectClose, expectSame, feed, maxAbs, maxDifference, run } from '../support/run.js';

const folder = temporaryFolder();
const integers = Array.from({ length: 48 }, (_, i) => ((i * 37) % 255) - 127);
const scales = [0.01, 0.02, 0.005, 0.015, 0.03, 0.01, 0.02, 0.04];

interface Form {
  readonly nodes: readonly NodeProto[];
  readonly layer?: NodeProto;
  readonly source: string;
  /** Of the fold, where it is not `dequantized`. */
  readonly kind?: string;
  /** Of ONNX Runtime's optimizations; default `disabled`. */
  readonly level?: 'all';
}

const matMul = node('MatMul', ['x', 'w'], 'y', {}, 'layer');
const cast = node('Cast', ['q'], 'c', { to: 1 });

const forms: Readonly<Record<string, Form>> = {
  'a Cast times a scale': {
    nodes: [cast, node('Mul', ['c', 'scale'], 'w')],
    source: 'initializer via Cast, Mul',
  },
  'scales of columns times a Cast': {
    nodes: [cast, node('Mul', ['scales', 'c'], 'w')],
    source: 'initializer via Cast, Mul',
  },
  'a Cast without its zero point, divided': {
    nodes: [
      cast,
      node('Cast', ['zero'], 'z', { to: 1 }),
      node('Sub', ['c', 'z'], 'd'),
      node('Div', ['d', 'inverses'], 'w'),
    ],
    source: 'initializer via Cast, Sub, Div',
  },
  'a product that is turned twice': {
    nodes: [
      cast,
      node('Mul', ['c', 'scale'], 'm'),
      node('Transpose', ['m'], 't', { perm: [1, 0] }),
      node('Identity', ['t'], 'w'),
    ],
    layer: node('Gemm', ['x', 'w'], 'y', { transB: 1 }, 'layer'),
    source: 'initializer via Cast, Mul, Transpose, Identity',
  },
  'a Constant that is quantized and dequantized': {
    nodes: [
      constant('f', tensor('', [6, 8], randomNumbers(3, 48))),
      node('QuantizeLinear', ['f', 'scale', 'zero'], 'i'),
      node('DequantizeLinear', ['i', 'scale', 'zero'], 'w'),
    ],
    source: 'Constant node via QuantizeLinear, DequantizeLinear',
  },
  'integers that are only cast': {
    nodes: [node('Cast', ['small'], 'w', { to: 1 })],
    source: 'initializer via Cast',
  },
  'a product that is cast after it': {
    nodes: [
      node('Cast', ['q'], 'c', { to: 10 }),
      node('Cast', ['scales'], 'half', { to: 10 }),
      node('Mul', ['c', 'half'], 'm'),
      node('Transpose', ['m'], 't', { perm: [1, 0] }),
      node('Cast', ['t'], 'w', { to: 1 }),
    ],
    layer: node('Gemm', ['x', 'w'], 'y', { transB: 1 }, 'layer'),
    source: 'initializer via Cast, Mul, Transpose, Cast',
    // ONNX Runtime rounds the product to float16 only without optimizations.
    level: 'all',
  },
  'a list that is reshaped': {
    nodes: [
      constant('shape', tensor('', [2], [-1, 8], 'int64')),
      node('Reshape', ['list', 'shape'], 'w'),
    ],
    source: 'initializer via Reshape',
    kind: 'split',
  },
  'heads that are turned, flattened, and turned back': {
    nodes: [
      node('Transpose', ['heads'], 'turned', { perm: [1, 2, 0] }),
      node('Flatten', ['turned'], 'flat', { axis: 2 }),
      node('Transpose', ['flat'], 'w', { perm: [1, 0] }),
    ],
    source: 'initializer via Transpose, Flatten, Transpose',
    kind: 'split',
  },
  'a matrix with an axis too many, turned whole': {
    nodes: [node('Transpose', ['boxed'], 'turned'), node('Squeeze', ['turned', 'second'], 'w')],
    source: 'initializer via Transpose, Squeeze',
    kind: 'split',
  },
  'a chain of forty nodes': {
    nodes: [
      node('Mul', ['matrix', 'scale'], 'v0'),
      ...Array.from({ length: 38 }, (_, i) =>
        node('Transpose', [`v${i}`], `v${i + 1}`, { perm: [1, 0] }),
      ),
      node('Sub', ['v38', 'scales'], 'w'),
    ],
    source: `initializer via Mul, ${'Transpose, '.repeat(38)}Sub`,
  },
};

function modelOf({ nodes, layer = matMul }: Pick<Form, 'nodes' | 'layer'>): Uint8Array {
  return model({
    nodes: [...nodes, layer],
    initializers: [
      tensor('q', [6, 8], integers, 'int8'),
      tensor('scale', [], [0.01]),
      tensor('scales', [8], scales),
      tensor(
        'inverses',
        [8],
        scales.map((scale) => 1 / scale),
      ),
      tensor('zero', [], [3], 'int8'),
      tensor(
        'small',
        [6, 8],
        integers.map((one) => one % 3),
        'int8',
      ),
      tensor('list', [48], randomNumbers(4, 48)),
      tensor('heads', [6, 2, 4], randomNumbers(5, 48)),
      tensor('boxed', [8, 1, 6], randomNumbers(6, 48)),
      tensor('second', [1], [1], 'int64'),
      tensor('matrix', [6, 8], randomNumbers(8, 48)),
    ],
    inputs: [value('x', ['n', 6])],
    outputs: ['y'],
  });
}

const feeds = { x: feed([3, 6], randomNumbers(7, 18)) };

describe.each(Object.keys(forms))('%s', (name) => {
  const { source, kind = 'dequantized', level, ...parts } = forms[name]!;

  it('takes an adapter that starts exact, and comes off', async () => {
    const path = folder.write(modelOf(parts));
    const [output, back] = [folder.fresh(), folder.fresh()];
    await patch(path, { output, rank: 2, blocks: 2, targets: ['all'] });
    for (const level of ['disabled', 'basic', 'extended', 'all'] as const) {
      expectSame(await run(output, feeds, level), await run(path, feeds, level));
    }
    await unpatch(output, { output: back });
    expect(sameFiles(back, path)).toBe(true);
  });

  it('is folded as a dequantized weight', async () => {
    const path = folder.write(modelOf(parts));
    const [patched, output] = [folder.fresh(), folder.fresh()];
    const options = { rank: 2, blocks: 2, targets: ['all'], factors: trained };
    await patchFile(path, patched, options);
    const result = await merge(patched, { output, quantized: 'dequantize' });
    expect(result.merged).toMatchObject([{ node: 'layer', kind }]);
    expect(result.verification).toMatchObject({ passed: true });
    const expected = await run(patched, feeds, level);
    expectClose(await run(output, feeds, level), expected, 1e-5);
    const moved = maxDifference(expected.y!.data, (await run(path, feeds, level)).y!.data);
    expect(moved).toBeGreaterThan(0.01 * maxAbs(expected.y!.data));
  });

  it('says in inspect what it is made of', async () => {
    const { targets } = await inspect(folder.write(modelOf(parts)));
    expect(targets).toMatchObject([{ eligible: true, weight: { shape: [6, 8], source } }]);
  });
});

it('two layers of one tensor with two scales have adapters of their own', async () => {
  const path = folder.write(
    model({
      nodes: [
        cast,
        node('Mul', ['c', 'one'], 'w1'),
        node('Mul', ['c', 'two'], 'w2'),
        node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
        node('MatMul', ['h', 'w2'], 'y', {}, 'second'),
      ],
      initializers: [
        tensor('q', [6, 6], integers.slice(0, 36), 'int8'),
        tensor('one', [], [0.01]),
        tensor('two', [], [0.02]),
      ],
      inputs: [value('x', ['n', 6])],
      outputs: ['y'],
    }),
  );
  const [patched, output] = [folder.fresh(), folder.fresh()];
  await patchFile(path, patched, { rank: 2, blocks: 2, targets: ['all'], factors: trained });
  const { merged } = await merge(patched, { output, quantized: 'dequantize' });
  expect(merged.map(({ node: layer }) => layer)).toEqual(['first', 'second']);
  expectClose(await run(output, feeds), await run(patched, feeds), 1e-5);
});

it.each([
  ['a Mul in float16', [node('Mul', ['c', 'half'], 'w')]],
  [
    'a Mul that is reshaped in float16',
    [
      constant('shape', tensor('', [2], [0, -1], 'int64')),
      node('Mul', ['c', 'half'], 'm'),
      node('Reshape', ['m', 'shape'], 'w'),
    ],
  ],
] as const)('%s is folded as a float16 weight', async (_, nodes) => {
  const path = folder.write(
    model({
      nodes: [node('Cast', ['q'], 'c', { to: 10 }), ...nodes, matMul],
      initializers: [tensor('q', [6, 8], integers, 'int8'), tensor('half', [8], scales, 'float16')],
      inputs: [value('x', ['n', 6], 'float16')],
      outputs: [value('y', ['n', 8], 'float16')],
    }),
  );
  const [patched, output] = [folder.fresh(), folder.fresh()];
  await patchFile(path, patched, { rank: 2, blocks: 2, targets: ['all'], factors: trained });
  const result = await merge(patched, { output, quantized: 'dequantize' });
  expect(result.merged).toMatchObject([{ node: 'layer', kind: 'dequantized' }]);
  expect(result.verification).toMatchObject({ passed: true });
  expect(openModel(output).graph.initializers.get('q_merged')).toMatchObject({ dataType: 10 });
});

it('two layers that reshape one tensor each have a weight of their own', async () => {
  const path = folder.write(
    model({
      nodes: [
        constant('shape', tensor('', [2], [6, 6], 'int64')),
        node('Reshape', ['list', 'shape'], 'w1'),
        node('Reshape', ['list', 'shape'], 'square'),
        node('Transpose', ['square'], 'w2'),
        node('MatMul', ['x', 'w1'], 'h', {}, 'first'),
        node('MatMul', ['h', 'w2'], 'y', {}, 'second'),
      ],
      initializers: [tensor('list', [36], randomNumbers(9, 36))],
      inputs: [value('x', ['n', 6])],
      outputs: ['y'],
    }),
  );
  const [patched, output] = [folder.fresh(), folder.fresh()];
  await patchFile(path, patched, { rank: 2, blocks: 2, targets: ['all'], factors: trained });
  const { merged } = await merge(patched, { output });
  expect(merged.map(({ kind }) => kind)).toEqual(['split', 'split']);
  expectClose(await run(output, feeds), await run(patched, feeds), 1e-5);
});

it('a weight of a Conv that is put together of others says so', async () => {
  const path = folder.write(
    model({
      nodes: [
        node('Concat', ['left', 'right'], 'w', { axis: 0 }),
        node('Conv', ['x', 'w'], 'y', {}, 'layer'),
      ],
      initializers: [tensor('left', [2, 6, 1, 1]), tensor('right', [2, 6, 1, 1])],
      inputs: [value('x', [1, 6, 2, 2])],
      outputs: ['y'],
    }),
  );
  const { targets } = await inspect(path);
  const reason = expect.stringContaining('its weight w is computed of constants, expected one');
  expect(targets).toMatchObject([{ eligible: false, reason }]);
});

it('a product that grows is no weight', async () => {
  const path = folder.write(
    model({
      nodes: [node('Mul', ['column', 'row'], 'w'), matMul],
      initializers: [tensor('column', [6, 1]), tensor('row', [1, 8])],
      inputs: [value('x', ['n', 6])],
      outputs: ['y'],
    }),
  );
  const { message } = await failure(() => patch(path, { output: folder.fresh() }), 'no-target');
  expect(message).toContain('its weight w is computed of constants, expected one stored matrix');
});
