/** One slotted model in memory, and the adapters of each run. */
import { copyFileSync, readdirSync, renameSync, statSync, truncateSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type AdapterRunOptions,
  AdapterSession,
} from '../../../src/adapters/slots/adapter-session.js';
import { extract } from '../../../src/commands/extract.js';
import { merge } from '../../../src/commands/merge.js';
import type { PatchOptions } from '../../../src/commands/patch.js';
import { patch } from '../../../src/commands/patch.js';
import {
  type Feeds,
  tensorFromNumbers,
  tensorToFloat64,
} from '../../../src/runtime/tensor-value.js';
import { type InsertOptions, patchFile, randomNumbers, trained } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { feed, maxAbs, maxDifference, run } from '../../support/run.js';
import { describeOnWebGpu } from '../../support/vulkan.js';
import {
  goldenCases,
  ZOO,
  zooFeeds,
  zooJson,
  zooModel,
  zooTensors,
  zooValues,
} from '../../support/zoo.js';

const folder = temporaryFolder();

/** Two layers of 8 to 12 to 8 features. */
const layers = model({
  nodes: [
    node('MatMul', ['x', 'v'], 'h', {}, '/net/one/MatMul'),
    node('MatMul', ['h', 'w'], 'y', {}, '/net/two/MatMul'),
  ],
  initializers: [
    tensor('v', [8, 12], randomNumbers(4, 96)),
    tensor('w', [12, 8], randomNumbers(5, 96)),
  ],
  inputs: [value('x', ['n', 8])],
  outputs: ['y'],
});
const X = randomNumbers(3, 24);
const x: Feeds = new Map([['x', tensorFromNumbers('float32', [3, 8], X)]]);

const localized = { rank: 4, blocks: 2, factors: (a) => trained(a, 1) } satisfies InsertOptions;
const global = {
  ...{ structure: 'global', rank: 3, alpha: 5 },
  factors: (a) => trained(a, 2),
} satisfies InsertOptions;
const diagonal = {
  ...{ structure: 'diagonal', rank: 2, blocks: 4, hybrid: 2, targets: ['net.two'] },
  factors: (a) => trained(a, 3),
} satisfies InsertOptions;

/** A file with adapters for the model at `base`, and the model that carries them. */
async function adapterFile(options: InsertOptions, base: string, name = 'a.safetensors') {
  const [patched, file] = [folder.fresh(), folder.fresh(name)];
  await patchFile(base, patched, options);
  await extract(patched, { output: file });
  return { patched, file };
}

async function slotted(base: string, options: PatchOptions = {}) {
  const output = folder.fresh();
  await patch(base, { output, slots: 'required', ...options });
  return output;
}

/** The small model in a session, with its adapters loaded under these names. */
async function session(adapters: Record<string, InsertOptions>, options: PatchOptions = {}) {
  const base = folder.write(layers);
  const opened = await AdapterSession.open(await slotted(base, options));
  const patched: Record<string, string> = {};
  for (const [name, one] of Object.entries(adapters)) {
    const made = await adapterFile(one, base);
    opened.load(name, made.file);
    patched[name] = made.patched;
  }
  const y = async (choice?: AdapterRunOptions['adapters'], feeds = x) =>
    tensorToFloat64((await opened.run(feeds, { adapters: choice })).get('y')!);
  /** The output of a model file of its own. */
  const of = async (path: string) => (await run(path, { x: feed([3, 8], X) })).y!.data;
  return { session: opened, base, patched, y, of };
}

/** The recorded inputs of a model of the zoo. */
function feedsOf(name: string): Feeds {
  const feeds = Object.entries(zooFeeds(name));
  return new Map(
    feeds.map(([key, { type, dims, data }]) => [key, { dtype: type, dims, data } as never]),
  );
}

function expectNear(actual: Float64Array, expected: Float64Array, tolerance = 1e-5) {
  expect(maxDifference(actual, expected)).toBeLessThanOrEqual(tolerance * maxAbs(expected));
}

describe('a run of an adapter session', () => {
  it('without adapters is the base: max|Δ| = 0', async () => {
    const { y, base, of } = await session({ localized });
    expect(maxDifference(await y(), await of(base))).toBe(0);
    expect(maxDifference(await y([]), await of(base))).toBe(0);
  });

  it('with one is what the model with that adapter in it computes, whatever its structure', async () => {
    const { y, patched, of } = await session({ localized, global, diagonal });
    for (const name of ['localized', 'global', 'diagonal', 'localized']) {
      expectNear(await y(name), await of(patched[name]!));
    }
  });

  it('with several is the model with the weighted sum of them folded in', async () => {
    const { y, base, session: opened, of } = await session({ localized, global, diagonal });
    const weights = { localized: 0.7, diagonal: -1.5, global: 2 };
    const chosen = Object.entries(weights).map(([name, weight]) => ({ name, weight }));
    let path = base;
    for (const { name, weight } of chosen) {
      const adapter = opened.adapters.find((one) => one.name === name)!.path;
      const output = folder.fresh();
      await merge(path, { adapter, scale: weight, output, verify: false });
      path = output;
    }
    expectNear(await y(chosen), await of(path));
    expectNear(await y([{ name: 'localized' }]), await y('localized'), 0);
    expectNear(await y([{ name: 'localized', weight: 0 }]), await y(), 0);
  });

  it('leaves no trace in the next one', async () => {
    const { y } = await session({ localized, global });
    const [base, first] = [await y(), await y('localized')];
    await y([{ name: 'global', weight: 3 }, 'localized']);
    expect(maxDifference(await y('localized'), first)).toBe(0);
    expect(maxDifference(await y(), base)).toBe(0);
  });

  it('may have any number of combinations, and runs at the same time', async () => {
    const { y, session: opened } = await session({ localized, global });
    const weights = Array.from({ length: 40 }, (_, i) => i / 8);
    const inTurn: Float64Array[] = [];
    for (const weight of weights) inTurn.push(await y([{ name: 'localized', weight }, 'global']));
    const together = await Promise.all(
      weights.map((weight) => y([{ name: 'localized', weight }, 'global'])),
    );
    expect(together).toEqual(inTurn);
    await opened.release();
  });

  it('feeds the model its own inputs, which are the only ones it shows', async () => {
    const { session: opened } = await session({});
    expect(opened.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(opened.outputs.map(({ name }) => name)).toEqual(['y']);
    expect(opened.provider).toBe('cpu');
    const error = await failure(() => opened.run(new Map()), 'runtime');
    expect(error.message).toMatch(/input 'x' is missing/);
  });
});

describe('adapters of a session', () => {
  it('are listed with their size in memory, loaded and unloaded', async () => {
    const { session: opened, y } = await session({ localized, diagonal });
    // float32: rank 4 · (in + out) of two layers; one layer, of rank 2 and a global part of 2.
    expect(opened.adapters.map(({ name, slots, bytes }) => [name, slots, bytes])).toEqual([
      ['localized', 2, 4 * 4 * 2 * (8 + 12)],
      ['diagonal', 1, 4 * (2 + 2) * (8 + 12)],
    ]);
    await y(['localized', 'diagonal']);
    opened.unload('localized');
    expect(opened.adapters.map(({ name }) => name)).toEqual(['diagonal']);
    const error = await failure(() => y('localized'), 'no-adapter');
    expect(error.message).toMatch(/no adapter "localized" is loaded, there is: diagonal/);
    await failure(() => opened.unload('localized'), 'no-adapter');
  });

  it('of one name may be replaced by others', async () => {
    const { session: opened, y, base } = await session({ one: localized });
    const before = await y('one');
    const { file } = await adapterFile(global, base);
    const error = await failure(() => opened.load('one', file), 'invalid-argument');
    expect(error.message).toMatch(/"one" is loaded already, from .*a\.safetensors/);
    opened.unload('one');
    opened.load('one', file);
    expect(maxDifference(await y('one'), before)).toBeGreaterThan(0.01);
  });

  it('come from files of ONNX Runtime as well', async () => {
    const { session: opened, y, base } = await session({ localized });
    const { file } = await adapterFile(localized, base, 'a.onnx_adapter');
    opened.load('runtime', file);
    expectNear(await y('runtime'), await y('localized'));
  });

  it('are refused where a weight is none or a name comes twice', async () => {
    const { y } = await session({ localized });
    const twice = await failure(() => y(['localized', 'localized']), 'invalid-argument');
    expect(twice.message).toMatch(/"localized" is named twice/);
    const weight = Number.NaN;
    const nan = await failure(() => y([{ name: 'localized', weight }]), 'invalid-argument');
    expect(nan.message).toMatch(/the weight of "localized" is NaN/);
  });

  it('are refused where a layer has no slot', async () => {
    const { session: opened, base } = await session({}, { targets: ['net.two'] });
    const { file } = await adapterFile(localized, base);
    const error = await failure(() => opened.load('a', file), 'adapter-mismatch');
    expect(error.message).toMatch(/has no slot for net\.one$/);
    expect(error.hint).toMatch(/`targets`/);
    expect(opened.adapters).toEqual([]);
    opened.load('b', (await adapterFile(diagonal, base)).file);
  });

  it('are refused where the model has no such layer', async () => {
    const { session: opened } = await session({});
    const { file } = await adapterFile(localized, zooModel('mlp-regression'));
    await failure(() => opened.load('a', file), 'adapter-mismatch');
  });

  it('are refused where they change more than factors', async () => {
    const { session: opened, base } = await session({});
    const tensors = [
      { name: 'v', dtype: 'float32' as const, dims: [8, 12], data: new Uint8Array(384) },
    ];
    const options = { ...diagonal, extras: { tensors } };
    const { file } = await adapterFile(options, base);
    const error = await failure(() => opened.load('a', file), 'unsupported');
    expect(error.message).toMatch(/has trained tensors of the model, and slots take A and B only/);
    expect(error.hint).toMatch(/merge/);
  });

  it('are refused where they are DoRA, whose change depends on the weights', async () => {
    const opened = await AdapterSession.open(await slotted(zooModel('bert-cls-torchscript')));
    const dora = join(ZOO, 'adapters-extra', 'dora');
    const error = await failure(() => opened.load('dora', dora), 'unsupported');
    expect(error.message).toMatch(/has a magnitude \(DoRA\) for .*, and slots take A and B only/);
  });

  it('of nodes that share a weight fit slots of that weight, or of each node', async () => {
    const nodes = ['one', 'two'].map((name) =>
      node('MatMul', ['x', 'w'], name, {}, `/net/${name}/MatMul`),
    );
    const initializers = [tensor('w', [8, 8])];
    const shared = model({
      ...{ nodes, initializers, inputs: [value('x', ['n', 8])], outputs: ['one', 'two'] },
    });
    const base = folder.write(shared);
    const all = (await adapterFile(localized, base)).file;
    const second = (await adapterFile({ ...localized, perNode: true, targets: ['two'] }, base))
      .file;
    const one = await AdapterSession.open(await slotted(base));
    one.load('all', all);
    await failure(() => one.load('second', second), 'adapter-mismatch');
    const each = await AdapterSession.open(await slotted(base, { perNode: true }));
    // The numbers are in memory once.
    expect(each.load('all', all)).toMatchObject({ slots: 2, bytes: 4 * 4 * 16 });
    each.load('second', second);
    const outputs = async (session: AdapterSession, adapters?: string) =>
      [...(await session.run(x, { adapters })).values()].map(tensorToFloat64);
    expect(await outputs(each, 'all')).toEqual(await outputs(one, 'all'));
    const [base1, base2] = await outputs(each);
    const [first1, first2] = await outputs(each, 'second');
    expect(maxDifference(first1!, base1!)).toBe(0);
    expect(maxDifference(first2!, base2!)).toBeGreaterThan(0.01);
  });
});

describe.each(goldenCases)('folders of PEFT in one session: %s', (name) => {
  it('compute what PEFT recorded, one after the other', async () => {
    const opened = await AdapterSession.open(await slotted(zooModel(name)));
    const feeds = feedsOf(name);
    for (const kind of ['lora', 'gralora'] as const) {
      const { output } = zooJson<{ output: string }>(name, kind, 'expected.json');
      opened.load(kind, join(ZOO, name, kind, 'init'));
      const found = (await opened.run(feeds, { adapters: kind })).get(output)!;
      const expected = zooTensors([name, kind, 'expected.safetensors'], (file) =>
        zooValues(file, 'logits'),
      );
      expectNear(tensorToFloat64(found), expected.data, 1e-4);
    }
    await opened.release();
  });
});

describe('a session is refused', () => {
  it('for a model without slots, or with optional ones', async () => {
    const base = folder.write(layers);
    const none = await failure(() => AdapterSession.open(base), 'invalid-argument');
    expect(none.message).toMatch(/has no slots$/);
    expect(none.hint).toMatch(/patch\(model, \{ slots: true \}\)/);
    const optional = await slotted(base, { slots: 'optional' });
    const ignored = await failure(() => AdapterSession.open(optional), 'invalid-argument');
    expect(ignored.message).toMatch(/has optional slots, which ONNX Runtime for Node ignores/);
  });

  it('for a provider that does not exist', async () => {
    const path = await slotted(folder.write(layers));
    const provider = 'abacus' as never;
    await failure(() => AdapterSession.open(path, { provider }), 'invalid-argument');
  });
});

it('refuses to run where a data file was cut off, and takes one that was replaced', async () => {
  const path = await slotted(zooModel('bert-external-data'));
  const [data] = readdirSync(dirname(path)).filter((name) => !name.endsWith('.onnx'));
  const file = join(dirname(path), data!);
  const opened = await AdapterSession.open(path);
  const feeds = feedsOf('bert-external-data');
  const { size } = statSync(file);
  copyFileSync(file, `${file}.new`);
  renameSync(`${file}.new`, file);
  await opened.run(feeds);
  await opened.release();
  const again = await AdapterSession.open(path);
  truncateSync(file, 100);
  const { message } = await failure(() => again.run(feeds), 'io');
  expect(message).toBe(`${file} was cut off: it has 100 bytes, ${size} when it was opened`);
  await again.release();
});

it.each([
  'bert-cls-dynamo',
  'albert-shared',
  'gpt2-causal',
  'llama-causal',
  'bert-fp16',
  'vit-cls',
])('adapters switch on a real model: %s', async (name) => {
  const base = zooModel(name);
  const opened = await AdapterSession.open(await slotted(base));
  const feeds: Feeds = new Map(
    Object.entries(zooFeeds(name)).map(([key, { type, dims, data }]) => [
      key,
      { dtype: type, dims, data } as never,
    ]),
  );
  const made = { localized: { blocks: 2, rank: 8 }, global: { structure: 'global', rank: 4 } };
  for (const [key, options] of Object.entries(made) as [string, InsertOptions][]) {
    const { file, patched } = await adapterFile({ ...options, factors: trained }, base);
    opened.load(key, file);
    const outputs = await opened.run(feeds, { adapters: key });
    for (const [output, { data }] of Object.entries(await run(patched, zooFeeds(name), 'basic'))) {
      const tolerance = name === 'bert-fp16' ? 1e-2 : 1e-4;
      expectNear(tensorToFloat64(outputs.get(output)!), data, tolerance);
    }
  }
  await opened.release();
  await opened.release();
});

describeOnWebGpu('a session on WebGPU, where nothing has no elements', () => {
  it('computes what it does on the CPU, with slots that are empty as well', async () => {
    const { session: onCpu, y } = await session({ localized, diagonal });
    const path = await slotted(folder.write(layers));
    const opened = await AdapterSession.open(path, { provider: 'webgpu' });
    for (const { name, path: file } of onCpu.adapters) opened.load(name, file);
    for (const adapters of [undefined, 'localized', 'diagonal', ['localized', 'diagonal']]) {
      const found = (await opened.run(x, { adapters })).get('y')!;
      expectNear(tensorToFloat64(found), await y(adapters));
    }
    await opened.release();
  });

  it('is proven to start as the base', async () => {
    const output = folder.fresh();
    const options = { output, slots: 'required', verify: true, provider: 'webgpu' } as const;
    const { verification } = await patch(folder.write(layers), options);
    expect(verification).toMatchObject({ maxAbsDiff: 0, passed: true });
  });
});
