import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { NewAdapter } from '../../src/adapters/factors/factors.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { patch } from '../../src/commands/patch.js';
import { unpatch } from '../../src/commands/unpatch.js';
import { openModel } from '../../src/onnx/parse.js';
import { type InsertOptions, insertInto, patchFile, trained } from '../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../support/files.js';
import { body, constant, type ModelParts, model, node, tensor, value } from '../support/models.js';
import { expectSame, feed, maxDifference, run } from '../support/run.js';
import { zooModel } from '../support/zoo.js';

const folder = temporaryFolder();

const X = feed([2, 8], [1, -2, 3, -1, 0.5, 2, -3, 1, 0.25, 1, 1, -1, 2, -2, 0.5, 3]);
const SQUARE = { factors: trained, blocks: 2, rank: 4 };

/** Layers `/a/MatMul`, `/b/MatMul` and so on, one behind the other, 8 features each. */
function chain(...names: string[]): Uint8Array {
  return model({
    nodes: names.map((name, i) =>
      node(
        'MatMul',
        [i === 0 ? 'x' : `${names[i - 1]}_out`, `w_${name}`],
        `${name}_out`,
        {},
        `/${name}/MatMul`,
      ),
    ),
    initializers: names.map((name, i) => tensor(`w_${name}`, [8, 8], wave(64, i))),
    inputs: [value('x', ['n', 8])],
    outputs: [`${names.at(-1)}_out`],
  });
}

function wave(count: number, phase: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.sin(i + phase) / 2);
}

/** Adapters by name, as `patch` reports them. */
async function adaptersOf(bytes: Uint8Array, options: Parameters<typeof patch>[1]) {
  const { adapters } = await patch(folder.write(bytes), { ...options, output: folder.fresh() });
  return Object.fromEntries(adapters.map((adapter) => [adapter.name, adapter]));
}

describe('options', () => {
  it('default to rank 16 on a grid of 4 x 4 with alpha 2R', async () => {
    const { a } = await adaptersOf(chain('a'), {});
    expect(a).toMatchObject({
      set: 'default',
      structure: 'localized',
      grid: [4, 4],
      rank: 16,
      blockRank: 4,
      hybridRank: 0,
      alpha: 32,
      scale: 2,
      parameters: 16 * (8 + 8),
      nodes: ['/a/MatMul'],
      norm: 0,
    });
  });

  it('rank and alpha patterns apply to the layers they match, the first match winning', async () => {
    const found = await adaptersOf(chain('a', 'b', 'c'), {
      rank: 8,
      rankPattern: ['a=4', 're:[ab]=12'],
      alphaPattern: ['c=2', 'glob:*=6'],
    });
    const of = (name: string) => [found[name]!.rank, found[name]!.alpha, found[name]!.scale];
    expect(of('a')).toEqual([4, 6, 1.5]);
    expect(of('b')).toEqual([12, 6, 0.5]);
    expect(of('c')).toEqual([8, 2, 0.25]);
  });

  it('structure patterns give layers another structure, on the grid of all or their own', async () => {
    const found = await adaptersOf(chain('a', 'b', 'c'), {
      rank: 8,
      blocks: 2,
      structurePattern: ['a=global', 'b=localized:8', 're:[ab]=diagonal'],
      rankPattern: ['c=2'],
    });
    const of = (name: string) => [
      found[name]!.structure,
      found[name]!.grid,
      found[name]!.blockRank,
    ];
    expect(of('a')).toEqual(['global', [1, 1], 8]);
    expect(of('b')).toEqual(['localized', [8, 8], 1]);
    expect(of('c')).toEqual(['localized', [2, 2], 1]);
  });

  it('alpha follows the rank of a pattern where nothing gives it', async () => {
    const { a, b } = await adaptersOf(chain('a', 'b'), { rankPattern: ['a=4'] });
    expect([a!.alpha, b!.alpha]).toEqual([8, 32]);
  });

  it('rslora divides by the root of the rank, and a hybrid counts into it', async () => {
    const { a } = await adaptersOf(chain('a'), { scaling: 'rslora', alpha: 8 });
    expect(a!.scale).toBe(2);
    const other = await adaptersOf(chain('a'), { alpha: 10, hybrid: 4, scaling: 'standard' });
    expect(other.a).toMatchObject({ scale: 0.5, hybridRank: 4, parameters: 20 * 16 });
  });

  it.each([
    [{ rankPattern: ['a'] }, 'invalid-argument', 'expected PATTERN=NUMBER'],
    [{ rankPattern: ['a='] }, 'invalid-argument', 'expected PATTERN=NUMBER'],
    [{ alphaPattern: ['a=x'] }, 'invalid-argument', 'expected PATTERN=NUMBER'],
    [{ rankPattern: ['query=8'] }, 'no-match', 'rank pattern "query" matches no layer'],
    [{ rankPattern: ['a=6'] }, 'invalid-argument', 'rank 6 is not a multiple of blocks 4'],
    [{ structurePattern: ['a=lora'] }, 'invalid-argument', 'localized, diagonal, global'],
    [{ structurePattern: ['a=global:x'] }, 'invalid-argument', 'expected PATTERN=NAME'],
    [{ structurePattern: ['a=localized:0'] }, 'invalid-argument', 'blocks is 0'],
    [{ structurePattern: ['query=global'] }, 'no-match', 'structure pattern "query" matches no'],
    [
      { alpha: Number.POSITIVE_INFINITY },
      'invalid-argument',
      '`alpha` is Infinity, expected a number up to 3.4e38',
    ],
    [{ targets: ['nothing'] }, 'no-match', 'matches no layer'],
  ] as const)('%o are refused', async (options, code, message) => {
    const error = await failure(() => adaptersOf(chain('a'), options), code);
    expect(error.message).toContain(message);
  });
});

describe('a model that takes no adapter', () => {
  it('is refused with the reason that most of its layers have', async () => {
    const bytes = model({
      nodes: [node('MatMul', ['x', 'x'], 'y', {}, 'scores'), node('MatMul', ['y', 'x'], 'z')],
      inputs: ['x'],
      outputs: ['z'],
    });
    const error = await failure(() => patch(folder.write(bytes)), 'no-target');
    expect(error.message).toContain('no layer can take an adapter (scores and 1 more: both its');
    expect(error.node).toBe('scores');
  });

  it('is refused where it has no linear layer at all', async () => {
    const bytes = model({ nodes: [node('Relu', ['x'], 'y')], inputs: ['x'], outputs: ['y'] });
    const error = await failure(() => patch(folder.write(bytes)), 'no-target');
    expect(error.message).toContain('it has no MatMul or Gemm with a constant weight');
  });

  it('is refused below opset 7', async () => {
    const bytes = model({
      opset: 6,
      nodes: [node('MatMul', ['x', 'w'], 'y')],
      initializers: [tensor('w', [8, 8])],
      inputs: ['x'],
      outputs: ['y'],
    });
    const error = await failure(() => patch(folder.write(bytes)), 'unsupported');
    expect(error.message).toContain('has opset 6, expected at least 7');
  });
});

describe('the start of an adapter', () => {
  /** The numbers of A of an adapter. */
  async function startOfA(options: InsertOptions, bytes = chain('a', 'b')): Promise<string> {
    const path = folder.write(await insertInto(bytes, options));
    const opened = openModel(path);
    const { adapter } = new PatchedModel(opened).sites.find((s) => s.adapter.name === 'b')!;
    const { data } = opened.graph.initializers.get(adapter.a)!;
    const { field } = data as Extract<typeof data, { kind: 'raw' }>;
    const read = Buffer.from(opened.source.read(field.value, field.end)).toString('hex');
    opened.close();
    return read;
  }

  it('is the same for the same seed, and another for another', async () => {
    const one = await insertInto(chain('a', 'b'), { seed: 1 });
    expect(Buffer.compare(await insertInto(chain('a', 'b'), { seed: 1 }), one)).toBe(0);
    expect(await startOfA({ seed: 2 })).not.toBe(await startOfA({ seed: 1 }));
  });

  it('does not depend on which other layers are patched', async () => {
    expect(await startOfA({ targets: ['b'] })).toBe(await startOfA({ targets: ['a', 'b'] }));
    expect(await startOfA({}, chain('c', 'b'))).toBe(await startOfA({}));
  });
});

/** Freshly patched the model computes the same, and unpatched it is the same. */
async function expectExactStart(bytes: Uint8Array, feeds: Parameters<typeof run>[1]) {
  for (const optimization of ['disabled', 'all'] as const) {
    expectSame(
      await run(await insertInto(bytes, { blocks: 2, rank: 4 }), feeds, optimization),
      await run(bytes, feeds, optimization),
    );
  }
  const path = folder.write(await insertInto(bytes, SQUARE));
  const output = folder.fresh();
  await unpatch(path, { output });
  expect(readFileSync(output).equals(bytes)).toBe(true);
}

/** `y = x · w`, read by `nodes`. */
function layer(parts: Partial<ModelParts> & Pick<ModelParts, 'outputs'>): Uint8Array {
  return model({
    ...parts,
    nodes: [node('MatMul', ['x', 'w'], 'y', {}, '/layer/MatMul'), ...(parts.nodes ?? [])],
    initializers: [tensor('w', [8, 8], wave(64, 0)), ...(parts.initializers ?? [])],
    inputs: parts.inputs ?? [value('x', ['n', 8])],
  });
}

describe('whoever reads the output of a layer reads the adapted one', () => {
  it('twice in one node, and as an output of the graph', async () => {
    const bytes = layer({ nodes: [node('Mul', ['y', 'y'], 'z')], outputs: ['y', 'z'] });
    await expectExactStart(bytes, { x: X });
    const { y, z } = await run(await insertInto(bytes, SQUARE), { x: X });
    expect(maxDifference(y!.data, (await run(bytes, { x: X })).y!.data)).toBeGreaterThan(0.1);
    expect(
      maxDifference(
        z!.data,
        y!.data.map((v) => Math.fround(v * v)),
      ),
    ).toBeLessThan(1e-5);
  });

  it('inside an If body', async () => {
    const branch = (op: string) => ({
      graph: body({ nodes: [node(op, ['y'], op)], outputs: [op] }),
    });
    const bytes = layer({
      nodes: [
        node('If', ['c'], 'z', { then_branch: branch('Neg'), else_branch: branch('Identity') }),
      ],
      inputs: [value('x', ['n', 8]), value('c', [], 'bool')],
      outputs: ['z'],
    });
    await expectExactStart(bytes, { x: X, c: feed([], [1], 'bool') });
    const patched = await insertInto(bytes, SQUARE);
    const other = await run(patched, { x: X, c: feed([], [0], 'bool') });
    const negative = await run(patched, { x: X, c: feed([], [1], 'bool') });
    expectSame({ z: { ...negative.z!, data: negative.z!.data.map((v) => -v) } }, other);
    const base = await run(bytes, { x: X, c: feed([], [0], 'bool') });
    expect(maxDifference(other.z!.data, base.z!.data)).toBeGreaterThan(0.1);
  });
});

describe('a layer inside an If body', () => {
  const branch = body({
    nodes: [
      node('MatMul', ['x', 'w'], 'a', {}, 'captured'),
      constant('v', tensor('', [8, 8], wave(64, 2))),
      node('MatMul', ['a', 'v'], 'b', {}, 'own'),
    ],
    outputs: ['b'],
  });
  const other = body({ nodes: [node('Identity', ['x'], 'i')], outputs: ['i'] });
  const bytes = model({
    nodes: [
      node('If', ['c'], 'z', { then_branch: { graph: branch }, else_branch: { graph: other } }),
    ],
    initializers: [tensor('w', [8, 8], wave(64, 0))],
    inputs: [value('x', ['n', 8]), value('c', [], 'bool')],
    outputs: ['z'],
  });
  const taken = { x: X, c: feed([], [1], 'bool') };

  it('takes an adapter beside it, which works where the branch is taken', async () => {
    await expectExactStart(bytes, taken);
    const patched = await insertInto(bytes, SQUARE);
    expect(
      maxDifference((await run(patched, taken)).z!.data, (await run(bytes, taken)).z!.data),
    ).toBeGreaterThan(0.1);
    const not = { ...taken, c: feed([], [0], 'bool') };
    expectSame(await run(patched, not), await run(bytes, not));
  });
});

it('patches a model of IR 3, where initializers are inputs', async () => {
  const bytes = layer({ opset: 8, outputs: ['y'] });
  await expectExactStart(bytes, { x: X });
});

it('patches a layer without a name, under the name of its output, also a second time', async () => {
  const bytes = model({
    nodes: [node('MatMul', ['x', 'w'], 'y')],
    initializers: [tensor('w', [8, 8])],
    inputs: ['x'],
    outputs: ['y'],
  });
  const first = folder.fresh();
  expect((await patch(folder.write(bytes), { output: first })).adapters[0]).toMatchObject({
    name: 'y',
    nodes: ['y'],
  });
  const again = await patch(first, { output: folder.fresh(), name: 'b', targets: ['y'] });
  expect(again.adapters[0]).toMatchObject({ name: 'y', nodes: ['y'] });
});

describe('nodes that share a weight', () => {
  const shared = (attributes = {}) =>
    model({
      nodes: [
        node('Gemm', ['x', 'w'], 'a', attributes, '/one/Gemm'),
        node('Gemm', ['a', 'w'], 'y', {}, '/two/Gemm'),
      ],
      initializers: [tensor('w', [8, 8], wave(64, 0))],
      inputs: [value('x', ['n', 8])],
      outputs: ['y'],
    });

  it('share one adapter', async () => {
    const found = await adaptersOf(shared(), {});
    expect(Object.keys(found)).toEqual(['one']);
    expect(found.one!.nodes).toEqual(['/one/Gemm', '/two/Gemm']);
    await expectExactStart(shared(), { x: X });
  });

  it('have one each where asked for', async () => {
    const found = await adaptersOf(shared(), { perNode: true });
    expect(Object.values(found).map(({ nodes }) => nodes)).toEqual([['/one/Gemm'], ['/two/Gemm']]);
  });

  it('have one each where they use it in different ways', async () => {
    expect(Object.keys(await adaptersOf(shared({ transB: 1 }), {}))).toEqual(['one', 'two']);
    expect(Object.keys(await adaptersOf(shared({ alpha: { float: 2 } }), {}))).toEqual([
      'one',
      'two',
    ]);
  });
});

describe('adapter sets in one model', () => {
  const base = chain('a', 'b');
  const bOnly = { ...SQUARE, targets: ['b'] };

  async function stacked(): Promise<Record<'first' | 'second' | 'both', string>> {
    const first = folder.write(await insertInto(base, { ...SQUARE, name: 'first' }));
    const second = folder.write(await insertInto(base, { ...bOnly, name: 'second' }));
    const both = folder.fresh();
    await patchFile(first, both, { ...bOnly, name: 'second' });
    return { first, second, both };
  }

  it('add up beside one layer', async () => {
    const one = { ...SQUARE, name: 'one' };
    const two = {
      ...SQUARE,
      name: 'two',
      factors: (planned: readonly NewAdapter[]) => trained(planned, 2),
    };
    const outputOf = async (bytes: Uint8Array) => (await run(bytes, { x: X })).a_out!.data;
    const plain = await outputOf(chain('a'));
    const withOne = await outputOf(await insertInto(chain('a'), one));
    const withTwo = await outputOf(await insertInto(chain('a'), two));
    const both = await outputOf(await insertInto(await insertInto(chain('a'), one), two));
    const sum = plain.map((v, i) => withOne[i]! + withTwo[i]! - v);
    expect(maxDifference(withOne, withTwo)).toBeGreaterThan(0.1);
    expect(maxDifference(both, sum)).toBeLessThan(1e-5);
  });

  it('are taken out one by one, in any order', async () => {
    const { first, second, both } = await stacked();
    const [withoutSecond, withoutFirst, none] = [folder.fresh(), folder.fresh(), folder.fresh()];
    expect((await unpatch(both, { output: withoutSecond, name: 'second' })).removed).toEqual([
      'second',
    ]);
    expect(sameFiles(withoutSecond, first)).toBe(true);
    await unpatch(both, { output: withoutFirst, name: 'first' });
    expectSame(await run(withoutFirst, { x: X }), await run(second, { x: X }));
    await unpatch(withoutFirst, { output: none });
    expect(readFileSync(none).equals(base)).toBe(true);
  });

  it('are taken out all at once where none is named', async () => {
    const { both } = await stacked();
    const output = folder.fresh();
    expect((await unpatch(both, { output })).removed).toEqual(['first', 'second']);
    expect(readFileSync(output).equals(base)).toBe(true);
  });

  it('have names of their own', async () => {
    const { both } = await stacked();
    const taken = await failure(
      () => patch(both, { output: folder.fresh(), name: 'first' }),
      'invalid-argument',
    );
    expect(taken.message).toContain('has an adapter set "first" already');
    const missing = await failure(
      () => unpatch(both, { output: folder.fresh(), name: 'third' }),
      'no-adapter',
    );
    expect(missing.message).toContain('no adapter set "third", it has: first, second');
  });
});

describe('unpatch', () => {
  it('is refused for a model without adapters', async () => {
    const path = folder.write(chain('a'));
    await failure(() => unpatch(path, { output: folder.fresh() }), 'no-adapter');
  });

  it('is refused where another program changed the graph', async () => {
    const path = folder.write(await insertInto(chain('a'), SQUARE));
    const bytes = readFileSync(path);
    // One byte of the last name of the last node: the Add of the adapter.
    const at = bytes.indexOf('lora/default/a/add');
    bytes[at + 17] = 'X'.charCodeAt(0);
    writeFileSync(path, bytes);
    const error = await failure(
      () => unpatch(path, { output: folder.fresh() }),
      'invalid-manifest',
    );
    expect(error.message).toContain('node lora/default/a/add beside /a/MatMul is not in the graph');
  });

  it('gives back external data untouched', async () => {
    const original = zooModel('bert-external-data');
    const [patched, base] = [folder.fresh(), folder.fresh()];
    await patchFile(original, patched, { factors: trained });
    await unpatch(patched, { output: base });
    expect(sameFiles(base, original)).toBe(true);
    expect(sameFiles(`${base}.data`, `${original}.data`)).toBe(true);
  });
});

it.each([
  ['slots', 'rank', { slots: true, rank: 8 }],
  ['slots', 'adapter', { slots: 'optional', adapter: 'a.safetensors' }],
  ['slots', 'loss', { slots: true, loss: 'mse' }],
  ['adapter', 'rank', { adapter: 'a.safetensors', rank: 8 }],
  ['adapter', 'targets', { adapter: 'a.safetensors', targets: ['a'] }],
  ['adapter', 'verify', { adapter: 'a.safetensors', verify: true }],
] as const)('with %s refuses %s, which would have no effect', async (what, key, options) => {
  const error = await failure(
    () => patch(folder.write(chain('a')), { ...options, output: folder.fresh() }),
    'invalid-argument',
  );
  expect(error.message).toBe(`\`${key}\` has no effect with \`${what}\``);
});
