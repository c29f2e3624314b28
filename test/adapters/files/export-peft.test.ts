/** Adapters as a PEFT folder: PEFT's own layout to the bit, and every structure that PEFT cannot say. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { insertAdapters } from '../../../src/adapters/edit/insert.js';
import { openAdapter } from '../../../src/adapters/files/open-adapter.js';
import { PatchedModel } from '../../../src/adapters/model/patched.js';
import { apply } from '../../../src/commands/apply.js';
import { type ExtractOptions, extract } from '../../../src/commands/extract.js';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import { collect } from '../../../src/onnx/edit.js';
import { parseModel } from '../../../src/onnx/parse.js';
import { MemorySource } from '../../../src/onnx/source.js';
import { type InsertOptions, insertInto, trained } from '../../support/adapters.js';
import { denseDeltas } from '../../support/dense.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { goldenModel } from '../../support/golden.js';
import { model, node, tensor } from '../../support/models.js';
import { maxAbs, maxDifference } from '../../support/run.js';
import { goldenCases, ZOO, zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();

/** Names, types, shapes and bytes of a folder's tensors. */
function tensorsOf(path: string) {
  const file = openSafetensors(join(path, 'adapter_model.safetensors'));
  const entries = [...file.tensors].map(
    ([name, { dtype, shape }]) => [name, { dtype, shape, bytes: file.read(name) }] as const,
  );
  file.close();
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function configOf(path: string) {
  return JSON.parse(readFileSync(join(path, 'adapter_config.json'), 'utf8'));
}

/** What a folder means: the structure and scale of every module. */
function recordsOf(path: string) {
  const file = openAdapter(path);
  const entries = file.adapters.map(({ record }) => [record.name, record] as const);
  file.close();
  return Object.fromEntries(entries);
}

describe.each(goldenCases)('%s', (name) => {
  it.each(['lora', 'gralora'] as const)('gives PEFT’s %s folder back', async (kind) => {
    const output = folder.fresh('adapter');
    const patched = folder.write(await goldenModel(name, kind));
    const { peft } = await extract(patched, { output });
    expect(peft!.type).toBe(kind);
    expect(peft!.modules.every(({ form, error }) => form === 'same' && error === 0)).toBe(true);
    const recorded = join(ZOO, name, kind, 'init');
    expect(tensorsOf(output)).toEqual(tensorsOf(recorded));
    const found = recordsOf(output);
    for (const [module, { scaling: _, alpha: __, ...record }] of Object.entries(
      recordsOf(recorded),
    )) {
      expect(found[module]).toMatchObject(record);
    }
    expect(configOf(output).fan_in_fan_out).toBe(configOf(recorded).fan_in_fan_out);
  });
});

describe('an adapter of PEFT that went into a model', () => {
  const graph = zooModel('bert-cls-torchscript');
  const path = (name: string) => join(ZOO, 'adapters-extra', name);

  it.each([
    'all-linear',
    'exclude-modules',
    'layers-to-transform',
    'modules-to-save',
    'regex-target',
    'bias-lora-only',
    'dora',
  ])('comes out as it was: %s', async (name) => {
    const [patched, output] = [folder.fresh(), folder.fresh('adapter')];
    await apply(graph, path(name), { output: patched });
    await extract(patched, { output });
    expect(tensorsOf(output)).toEqual(tensorsOf(path(name)));
    const [found, recorded] = [configOf(output), configOf(path(name))];
    expect(found.bias).toBe(recorded.bias);
    expect(found.use_dora).toBe(recorded.use_dora);
    // PEFT lists task names as well, whichever of them the model has.
    const isSaved = recorded.modules_to_save?.includes('classifier');
    expect(found.modules_to_save).toEqual(isSaved ? ['classifier'] : null);
  });
});

const IN = 12;
const OUT = 8;

/** Layers of 12 to 8 features. */
const base = model({
  nodes: ['one', 'two'].map((name) =>
    node('MatMul', ['x', `w.${name}`], `y.${name}`, {}, `/net/${name}/MatMul`),
  ),
  initializers: ['one', 'two'].map((name) => tensor(`w.${name}`, [IN, OUT])),
  inputs: ['x'],
  outputs: ['y.one', 'y.two'],
});

/** A patched model as a PEFT folder, and its adapters in our own format. */
async function exported(
  options: InsertOptions = {},
  peftOptions: Partial<ExtractOptions> = {},
  graph = base,
) {
  const output = folder.fresh('adapter');
  const own = folder.fresh('adapter.safetensors');
  const patched = folder.write(
    await insertInto(graph, { factors: trained, rank: 4, blocks: 2, ...options }),
  );
  await extract(patched, { output: own });
  const { peft } = await extract(patched, { output, ...peftOptions });
  return { patched, own, output, peft: peft!, config: configOf(output) };
}

function expectSameDeltas(path: string, reference: string) {
  const [found, expected] = [denseDeltas(path), denseDeltas(reference)];
  expect(Object.keys(found)).toEqual(Object.keys(expected));
  for (const [name, delta] of Object.entries(expected)) {
    expect(maxDifference(found[name]!, delta), name).toBeLessThan(1e-6 * maxAbs(delta));
  }
}

describe('what PEFT cannot say as it is', () => {
  const localized: InsertOptions = { structure: 'localized' };
  const cases: readonly [string, InsertOptions, Partial<ExtractOptions>, number[]][] = [
    ['localized, where LORA is wanted', localized, { peftType: 'lora' }, [8, 8]],
    ['grids that are not square', { ...localized, blocks: 3, rank: 6 }, {}, [12, 12]],
    ['diagonal', { structure: 'diagonal', rank: 3 }, {}, [6, 6]],
    ['block ranks that differ', { rankPattern: ['two=6'] }, {}, [8, 12]],
    ['hybrids', { structure: 'diagonal', hybrid: 3 }, {}, [11, 11]],
    ['structures that differ', { structurePattern: ['two=global'] }, {}, [8, 4]],
  ];
  it.each(cases)('is LORA of the same ΔW: %s', async (_, options, peftOptions, ranks) => {
    const { own, output, peft, config } = await exported(options, peftOptions);
    expect(config.peft_type).toBe('LORA');
    expect(peft.modules.map(({ rank }) => rank)).toEqual(ranks);
    expect(peft.modules.every(({ error }) => error === 0)).toBe(true);
    expectSameDeltas(output, own);
  });

  it('is cut off at a rank, and says by how much', async () => {
    const { own, output, peft } = await exported({}, { peftRank: 3 });
    const [cut, whole] = [denseDeltas(output), denseDeltas(own)];
    for (const { name, form, rank, error } of peft.modules) {
      expect({ form, rank }).toEqual({ form: 'truncated', rank: 3 });
      const [a, b] = [cut[name]!, whole[name]!];
      const distance = Math.hypot(...a.map((value, i) => value - b[i]!)) / Math.hypot(...b);
      expect(error).toBeCloseTo(distance, 6);
      // The best approximation is orthogonal to what it leaves.
      expect(error).toBeCloseTo(Math.sqrt(1 - (Math.hypot(...a) / Math.hypot(...b)) ** 2), 6);
    }
  });

  it('is left as it is where its rank is within the limit', async () => {
    const { own, output, peft } = await exported({ structure: 'global' }, { peftRank: 4 });
    expect(peft.modules.map(({ form }) => form)).toEqual(['same', 'same']);
    expectSameDeltas(output, own);
  });
});

describe('the scale', () => {
  it.each<[string, InsertOptions]>([
    ['alpha', { structure: 'global', alphaPattern: ['two=3'] }],
    ['rank', { structure: 'global', rankPattern: ['one=6'], scaling: 'rslora' }],
    ['alpha, of blocks', { alphaPattern: ['two=3'] }],
    ['both, of stacked blocks', { structure: 'diagonal', rankPattern: ['two=2'], alpha: 5 }],
  ])('of each module is kept where they differ in %s', async (_, options) => {
    const { own, output } = await exported(options);
    expectSameDeltas(output, own);
  });

  it('is named for whole paths, which no other module ends with', async () => {
    const { config } = await exported({ structure: 'global', rankPattern: ['two=6'] });
    expect(config.rank_pattern).toEqual({ '^net\\.two': 6 });
    expect(config.target_modules).toEqual(['net.one', 'net.two']);
  });
});

describe('a layer', () => {
  it('that is a convolution gets the axes of its kernel', async () => {
    const graph = model({
      nodes: [node('Conv', ['x', 'w'], 'y', {}, '/net/conv/Conv')],
      initializers: [tensor('w', [OUT, IN, 1, 1])],
      inputs: ['x'],
      outputs: ['y'],
    });
    const { output } = await exported({ targets: ['all'] }, {}, graph);
    const shapes = Object.values(tensorsOf(output)).map(({ shape }) => shape);
    expect(shapes).toEqual([
      [8, IN, 1, 1],
      [OUT, 8, 1, 1],
    ]);
  });

  it('that PyTorch keeps the other way round is told to PEFT', async () => {
    const gemm = (transB: number) =>
      model({
        nodes: [node('Gemm', ['x', 'w'], 'y', { transB }, '/net/c_fc/Gemm')],
        initializers: [tensor('w', transB ? [OUT, IN] : [IN, OUT])],
        inputs: ['x'],
        outputs: ['y'],
      });
    expect((await exported({}, {}, gemm(0))).config.fan_in_fan_out).toBe(true);
    expect((await exported({}, {}, gemm(1))).config.fan_in_fan_out).toBe(false);
  });
});

describe('module paths', () => {
  it.each([
    ['net=', ['one', 'two']],
    ['=outer', ['outer.net.one', 'outer.net.two']],
    ['net=model.bert', ['model.bert.one', 'model.bert.two']],
  ])('start as --peft-prefix %s says', async (peftPrefix, expected) => {
    const { config, output } = await exported({}, { peftPrefix, baseModel: 'org/model' });
    expect(config.target_modules).toEqual(expected);
    expect(config.base_model_name_or_path).toBe('org/model');
    expect(Object.keys(tensorsOf(output))[0]).toBe(`base_model.model.${expected[0]}.gralora_A`);
  });
});

describe('extracting for PEFT is refused', () => {
  const cases: readonly [string, InsertOptions, Partial<ExtractOptions>, string][] = [
    [
      'for a prefix that paths do not have',
      {},
      { peftPrefix: 'model=' },
      'does not start with model',
    ],
    ['for a prefix that is no pair', {}, { peftPrefix: 'net' }, 'expected OLD=NEW'],
    ['as GRALORA with a rank', {}, { peftType: 'gralora', peftRank: 2 }, 'makes LORA, not GRALORA'],
    [
      'as GRALORA of no square grid',
      { structure: 'diagonal' },
      { peftType: 'gralora' },
      'GRALORA cannot say it: net.one is diagonal',
    ],
  ];
  it.each(cases)('%s', async (_, options, peftOptions, message) => {
    const patched = folder.write(await insertInto(base, { rank: 4, blocks: 2, ...options }));
    const output = folder.fresh('adapter');
    await expect(extract(patched, { output, ...peftOptions })).rejects.toThrow(message);
    expect(existsSync(output)).toBe(false);
  });

  it('for a set of replaced tensors alone', async () => {
    const opened = parseModel(new MemorySource(base));
    const data = new Uint8Array(4 * IN * OUT);
    const tensors = [{ name: 'w.one', dtype: 'float32', dims: [IN, OUT], data } as const];
    const { edit } = insertAdapters(new PatchedModel(opened), 'weights', [], { tensors });
    const patched = folder.write(await collect(edit.pieces()));
    const error = await failure(
      () => extract(patched, { output: folder.fresh('adapter') }),
      'unsupported',
    );
    expect(error.message).toContain('without adapters');
  });

  it('for several adapters beside one weight', async () => {
    const shared = model({
      nodes: ['one', 'two'].map((name) =>
        node('MatMul', ['x', 'w'], `y.${name}`, {}, `/net/${name}/MatMul`),
      ),
      initializers: [tensor('w', [IN, OUT])],
      inputs: ['x'],
      outputs: ['y.one', 'y.two'],
    });
    const patched = folder.write(await insertInto(shared, { rank: 4, blocks: 2, perNode: true }));
    const error = await failure(
      () => extract(patched, { output: folder.fresh('adapter') }),
      'unsupported',
    );
    expect(error.message).toContain('net.one and net.two adapt one weight');
  });

  it('for numbers that are none, and leaves no folder', async () => {
    const factors: InsertOptions['factors'] = (adapters) =>
      adapters.map((one) => ({
        ...one,
        values: (f) => trained([one])[0]!.values(f).fill(Infinity),
      }));
    const patched = folder.write(await insertInto(base, { rank: 4, blocks: 2, factors }));
    const output = folder.fresh('adapter');
    const error = await failure(() => extract(patched, { output }), 'invalid-adapter');
    expect(error.message).toContain('net.one holds Infinity');
    expect(existsSync(output)).toBe(false);
  });

  it.each([
    ['as PyTorch has it', 'net.two.weight', 1, 'net.one'],
    ['the other way round', 'w.two', 0, 'net.one'],
    ['beside its adapter', 'net.two.weight', 1, 'net.two'],
  ])(
    'for a trained weight with numbers that are none, stored %s',
    async (_, name, transB, target) => {
      const graph = model({
        nodes: [
          node('Gemm', ['x', 'w.one'], 'h', {}, '/net/one/Gemm'),
          node('Gemm', ['h', name], 'y', { transB }, '/net/two/Gemm'),
        ],
        initializers: [tensor('w.one', [IN, IN]), tensor(name, [IN, IN])],
        inputs: ['x'],
        outputs: ['y'],
      });
      const numbers = new Float32Array(IN * IN);
      numbers[1] = Number.NaN;
      const data = new Uint8Array(numbers.buffer);
      const tensors = [{ name, dtype: 'float32', dims: [IN, IN], data } as const];
      const targets = [target];
      const patched = await insertInto(graph, { rank: 4, blocks: 2, targets, extras: { tensors } });
      const output = folder.fresh('adapter');
      const error = await failure(
        () => extract(folder.write(patched), { output }),
        'invalid-adapter',
      );
      expect(error.message).toMatch(/weight holds NaN/);
      expect(existsSync(output)).toBe(false);
    },
  );

  it('over a folder that holds an adapter, unless forced', async () => {
    const { patched, output } = await exported();
    await failure(() => extract(patched, { output }), 'output-exists');
    await extract(patched, { output, force: true });
    expect(readdirSync(output).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
    ]);
  });

  it('with one rename, where the configuration stays as it is', async () => {
    const { patched, output } = await exported();
    const inodes = () =>
      ['adapter_config.json', 'adapter_model.safetensors'].map(
        (name) => statSync(join(output, name)).ino,
      );
    const [config, weights] = inodes();
    await extract(patched, { output, force: true });
    expect(inodes()[0]).toBe(config);
    expect(inodes()[1]).not.toBe(weights);
    await extract(patched, { output, force: true, baseModel: 'another/model' });
    expect(inodes()[0]).not.toBe(config);
  });

  it('to an ending that is no format', async () => {
    const { patched } = await exported();
    const output = folder.fresh('adapter.bin');
    const error = await failure(() => extract(patched, { output }), 'invalid-argument');
    expect(error.message).toContain('expected .safetensors, .onnx_adapter, or none');
  });

  it('with options for PEFT in another format', async () => {
    const { patched } = await exported();
    const output = folder.fresh('adapter.safetensors');
    const error = await failure(
      () => extract(patched, { output, peftRank: 4 }),
      'invalid-argument',
    );
    expect(error.message).toContain('`peftRank` has no effect on safetensors files');
  });
});

it('a folder that is new appears whole, or not at all', async () => {
  const output = folder.fresh('adapter');
  const patched = folder.write(await goldenModel('mlp-regression', 'lora'));
  const seen: boolean[] = [];
  const onProgress = () => seen.push(existsSync(output));
  await extract(patched, { output, onProgress });
  expect(new Set(seen)).toEqual(new Set([false]));
  expect(readdirSync(output).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
  expect(readdirSync(dirname(output))).toEqual(['adapter']);
  const other = folder.fresh('adapter');
  await failure(() => extract(patched, { output: other, signal: AbortSignal.abort() }), 'aborted');
  expect(readdirSync(dirname(other))).toEqual([]);
});
