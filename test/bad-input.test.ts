/** Whatever the input: it works, or it is one line that says what is wrong, and nothing is written. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { manifestKey, type Site } from '../src/adapters/model/manifest.js';
import { apply } from '../src/commands/apply.js';
import { extract } from '../src/commands/extract.js';
import { inspect } from '../src/commands/inspect.js';
import { foldAdapters } from '../src/commands/merge.js';
import { patch } from '../src/commands/patch.js';
import { unpatch } from '../src/commands/unpatch.js';
import { type ErrorCode, OnnxLoraError } from '../src/errors.js';
import { collect, MessageEdit } from '../src/onnx/edit.js';
import { metadataRecord } from '../src/onnx/encode.js';
import { allTensors } from '../src/onnx/external.js';
import { AttributeField, GraphField, ModelField, NodeField } from '../src/onnx/fields.js';
import { insertInto, randomNumbers, trained } from './support/adapters.js';
import { cpuSeconds } from './support/cpu-time.js';
import { failure, temporaryFolder } from './support/files.js';
import { type ModelParts, model, node, tensor } from './support/models.js';
import { bytesField, concat, parse, varintField } from './support/wire.js';
import { zooModel } from './support/zoo.js';

const files = temporaryFolder();
const small = { rank: 4, blocks: 2 };

const zooBytes = (name: string) => new Uint8Array(readFileSync(zooModel(name)));

/** An adapter file of the zoo model that the tests below damage. */
let adapter: string;
let patchedBert: Uint8Array;
beforeAll(async () => {
  patchedBert = await insertInto(zooBytes('bert-cls-torchscript'), { ...small, factors: trained });
  adapter = files.fresh('adapter.safetensors');
  await extract(files.write(patchedBert), { output: adapter });
});

type Operation = (path: string, folder: string) => Promise<unknown>;
const operations: Readonly<Record<string, Operation>> = {
  patch: (path, at) => patch(path, { ...small, name: 'another', output: join(at, 'out.onnx') }),
  inspect: (path) => inspect(path),
  unpatch: (path, at) => unpatch(path, { output: join(at, 'out.onnx') }),
  merge: (path, at) => foldAdapters(path, { output: join(at, 'out.onnx') }),
  extract: (path, at) => extract(path, { output: join(at, 'out.safetensors') }),
  apply: (path, at) => apply(path, adapter, { name: 'another', output: join(at, 'out.onnx') }),
};
const names = Object.keys(operations);

function folder(): string {
  const path = files.fresh('folder');
  mkdirSync(path);
  return path;
}

/** The code of the error, which is one line of ours and leaves nothing behind; `works` without. */
async function outcome(operation: Operation, path: string): Promise<ErrorCode | 'works'> {
  const at = folder();
  try {
    await operation(path, at);
    return 'works';
  } catch (error) {
    if (!(error instanceof OnnxLoraError)) throw error;
    expect(error.message).not.toContain('\n');
    expect(readdirSync(at)).toEqual([]);
    return error.code;
  }
}

/** What the operations say, each once. */
async function outcomes(path: string, chosen = names): Promise<Set<ErrorCode | 'works'>> {
  const found = new Set<ErrorCode | 'works'>();
  for (const name of chosen) found.add(await outcome(operations[name]!, path));
  return found;
}

describe('what is no model', () => {
  const jpeg = Buffer.from('ffd8ffe000104a46494600010101004800480000ffdb0043000302020302', 'hex');
  const cases: readonly (readonly [string, () => string, ErrorCode])[] = [
    ['a missing file', () => files.fresh(), 'file-not-found'],
    ['a missing folder', () => join(files.fresh(), 'model.onnx'), 'file-not-found'],
    ['a folder', folder, 'not-a-file'],
    ['an empty file', () => files.write(new Uint8Array()), 'invalid-model'],
    ['a text', () => files.write(Buffer.from('# Model\n\nIt is elsewhere.\n')), 'invalid-model'],
    [
      'a pointer of Git LFS',
      () => files.write(Buffer.from('version https://git-lfs')),
      'invalid-model',
    ],
    ['a JPEG', () => files.write(jpeg), 'invalid-model'],
    ['an adapter file', () => adapter, 'invalid-model'],
  ];
  it.each(cases)('%s is refused by every operation', async (_, make, code) => {
    expect(await outcomes(make())).toEqual(new Set([code]));
  });
});

describe('a model that is cut off', () => {
  it.each([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99999])(
    'at %f of its length is refused by every operation',
    async (part) => {
      const path = files.write(patchedBert.subarray(0, Math.floor(part * patchedBert.length)));
      expect(await outcomes(path)).toEqual(new Set(['invalid-model']));
    },
  );
});

/** Bytes of a model that are no weights: that is where a wrong bit does harm. */
function structureOf(bytes: Uint8Array): number[] {
  const isWeight = new Uint8Array(bytes.length);
  for (const { tensor } of allTensors(parse(bytes))) {
    if (tensor.data.kind === 'raw')
      isWeight.fill(1, tensor.data.field.value, tensor.data.field.end);
  }
  return [...isWeight.keys()].filter((i) => isWeight[i] === 0);
}

/** One to three wrong bits among the bytes at `places`. */
function flipBits(bytes: Uint8Array, places: ArrayLike<number>, seed: number): Uint8Array {
  const random = randomNumbers(seed, 7).map((value) => (value + 1) / 2);
  const flipped = bytes.slice();
  for (let i = 0; i <= random[6]! * 3; i++) {
    const place = places[Math.floor(random[i]! * places.length)]!;
    flipped[place]! ^= 1 << Math.floor(random[i + 3]! * 8);
  }
  return flipped;
}

describe('wrong bits', () => {
  const models = [
    'mlp-regression',
    'bert-cls-torchscript',
    'bert-cls-dynamo',
    'bert-qdq',
    'llama-q4',
  ];

  /** Damages the model again and again; every operation ends soon, in one way or the other. */
  async function damage(bytes: Uint8Array, seeds: number, chosen: readonly string[]) {
    const places = structureOf(bytes);
    const before = process.resourceUsage().maxRSS;
    const seen = new Set<string>();
    for (let seed = 0; seed < seeds; seed++) {
      const path = files.write(flipBits(bytes, places, seed));
      const seconds = await cpuSeconds(async () => {
        seen.add(await outcome(operations[chosen[seed % chosen.length]!]!, path));
      });
      expect(seconds).toBeLessThan(5);
    }
    expect(process.resourceUsage().maxRSS - before).toBeLessThan(400 * 1024);
    expect(seen).toContain('works');
    expect(seen).toContain('invalid-model');
  }

  it.each(models)('in %s', async (name) => {
    await damage(zooBytes(name), 60, ['patch', 'patch', 'inspect']);
  });

  it.each(models)('in %s with adapters', async (name) => {
    const patched = await insertInto(zooBytes(name), { ...small, factors: trained });
    await damage(patched, 60, ['patch', 'inspect', 'unpatch', 'merge', 'extract']);
  });
});

describe('an adapter file', () => {
  const applyTo = (path: string) =>
    outcome(
      (file, at) => apply(zooModel('bert-cls-torchscript'), file, { output: join(at, 'o') }),
      path,
    );

  it.each([
    ['missing', () => files.fresh(), 'file-not-found'],
    ['a folder without an adapter of PEFT', folder, 'invalid-adapter'],
    ['empty', () => files.write(new Uint8Array()), 'invalid-adapter'],
    ['a model', () => zooModel('mlp-regression'), 'invalid-adapter'],
  ] as const)('that is %s is refused', async (_, make, code) => {
    expect(await applyTo(make())).toBe(code);
  });

  it('that is cut off anywhere is refused', async () => {
    const bytes = readFileSync(adapter);
    for (let part = 1; part < 10; part++) {
      const path = files.write(bytes.subarray(0, Math.floor((part * bytes.length) / 10)));
      expect(await applyTo(path)).toBe('invalid-adapter');
    }
  });

  it('with wrong bits works or is refused', async () => {
    const bytes = new Uint8Array(readFileSync(adapter));
    const header = new DataView(bytes.buffer).getUint32(0, true);
    const places = Array.from({ length: 8 + header }, (_, i) => i);
    const seen = new Set<string>();
    for (let seed = 0; seed < 60; seed++) {
      seen.add(await applyTo(files.write(flipBits(bytes, places, seed))));
    }
    expect(seen).toContain('invalid-adapter');
  });

  it('of another model is refused with the layers that are missing', async () => {
    const run = () => apply(zooModel('vit-cls'), adapter, { output: files.fresh() });
    expect((await failure(run, 'adapter-mismatch')).message).toMatch(
      /adapters have no layer: .*no such layer/,
    );
  });
});

// biome-ignore lint/suspicious/noExplicitAny: a manifest is what JSON makes of it
type Manifest = any;

const chain = {
  nodes: [
    node('MatMul', ['x', 'w'], 'h', {}, 'first'),
    node('MatMul', ['h', 'v'], 'y', {}, 'second'),
  ],
  initializers: [tensor('w', [8, 8]), tensor('v', [8, 8])],
  inputs: ['x'],
  outputs: ['y'],
} satisfies ModelParts;

describe('a manifest', () => {
  /** A patched model whose manifest was changed behind our back. */
  async function withManifest(change: (manifest: Manifest) => unknown): Promise<string> {
    const patched = parse(
      await insertInto(model(chain), { ...small, hybrid: 2, factors: trained }),
    );
    const [entry] = patched.metadata;
    const manifest = JSON.parse(entry!.value());
    const changed = change(manifest);
    const json = typeof changed === 'string' ? changed : JSON.stringify(manifest);
    const edit = new MessageEdit(patched.source, patched.range);
    edit.replace(entry!.field, ...metadataRecord(entry!.key, json));
    return files.write(await collect(edit.pieces()));
  }

  const first = (m: Manifest) => m.adapters[0];
  const site = (m: Manifest) => m.adapters[0].sites[0];
  const damaged: readonly (readonly [string, (m: Manifest) => unknown])[] = [
    ['that is empty', () => ''],
    ['that is no JSON', () => '{"version": 1, "set": '],
    ['that is null', () => 'null'],
    ['that is a list', () => '[]'],
    ['that nests a million levels', () => '['.repeat(1e6) + ']'.repeat(1e6)],
    ['of another version', (m) => Object.assign(m, { version: 2 })],
    ['without adapters', (m) => (m.adapters = [])],
    ['with text for a number', (m) => (first(m).rank = '16')],
    ['with a number for text', (m) => (first(m).name = 7)],
    ['with a fraction for a rank', (m) => (first(m).blockRank = 1.5)],
    ['with a negative size', (m) => (first(m).in = -8)],
    ['with a size beyond 2^53', (m) => (first(m).out = 1e300)],
    ['with a grid of one number', (m) => (first(m).grid = [2])],
    ['with an infinite scale', (m) => JSON.stringify(m).replace(/"scale":[^,]+/, '"scale":1e999')],
    ['with an unknown structure', (m) => (first(m).structure = '__proto__')],
    ['with a site of no nodes', (m) => (site(m).nodes = [])],
    ['with a node that is not there', (m) => site(m).nodes.unshift('nope')],
    ['with a base that nobody adds to', (m) => (site(m).base = 'nope')],
    ['with the layer among its own nodes', (m) => site(m).nodes.unshift('first')],
    ['with its nodes in another order', (m) => site(m).nodes.reverse()],
  ];
  it.each(damaged)('%s is refused by every operation', async (_, change) => {
    const path = await withManifest(change);
    expect(await outcomes(path)).toEqual(new Set(['invalid-manifest']));
  });

  it.each<[string, (m: Manifest) => unknown]>([
    ['a huge input', (m) => (first(m).in = 2 ** 53 - 1)],
    ['a huge rank', (m) => (first(m).blockRank = 2 ** 53 - 1)],
    ['a huge grid', (m) => (first(m).grid = [2 ** 40, 2 ** 40])],
    ['a grid that does not divide it', (m) => (first(m).grid = [3, 3])],
    ['a huge hybrid', (m) => (first(m).hybridRank = 2 ** 50)],
    ['no tensors of the hybrid', (m) => delete first(m).generalA],
    ['a tensor that is not there', (m) => (first(m).a = 'nope')],
    ['a tensor called __proto__', (m) => (first(m).b = '__proto__')],
    ['a tensor of another shape', (m) => (first(m).a = 'w')],
  ])('that claims %s is refused where numbers are read', async (_, change) => {
    const path = await withManifest(change);
    expect(await outcomes(path, ['inspect', 'merge'])).toEqual(new Set(['invalid-manifest']));
  });

  it('that scales beyond all numbers is refused by merge', async () => {
    const path = await withManifest((m) => (first(m).scale = 1e308));
    expect(await outcome(operations.merge!, path)).toBe('invalid-adapter');
  });

  it('with keys that are not ours, __proto__ among them, is read without them', async () => {
    const path = await withManifest((m) =>
      JSON.stringify(m).replace('{', '{"__proto__":{"set":"x"},"constructor":1,"future":{},'),
    );
    const output = files.fresh();
    expect((await unpatch(path, { output })).removed).toEqual(['default']);
    expect(readFileSync(output).equals(model(chain))).toBe(true);
  });

  it('of 10 MB is read', async () => {
    const path = await withManifest((m) => {
      m.initializers.push(...Array.from({ length: 100_000 }, (_, i) => `${i}-${'n'.repeat(100)}`));
    });
    expect(statSync(path).size).toBeGreaterThan(10e6);
    expect(await cpuSeconds(() => inspect(path))).toBeLessThan(10);
  });

  it('with adapters that stand on each other in a circle is refused', async () => {
    const circle = [node('Add', ['p', 'x'], 'q', {}, 'a'), node('Add', ['q', 'x'], 'p', {}, 'b')];
    const path = await withSites(circle, [
      { node: 'n', base: 'p', nodes: ['a'] },
      { node: 'n', base: 'q', nodes: ['b'] },
    ]);
    const { message } = await failure(() => inspect(path), 'invalid-manifest');
    expect(message).toContain('no layer computes p');
    expect(await outcomes(path)).toEqual(new Set(['invalid-manifest']));
  });

  /** A model of other nodes than the ones its manifest was made for. */
  async function withSites(nodes: ModelParts['nodes'], sites: Site[]): Promise<string> {
    const patched = parse(await insertInto(model(chain), small));
    const manifest = JSON.parse(patched.metadata[0]!.value());
    const adapters = [{ ...manifest.adapters[0], sites }];
    const json = JSON.stringify({ ...manifest, adapters, initializers: [] });
    const entry = metadataRecord(manifestKey('default'), json);
    return files.write(concat(model({ ...chain, nodes }), ...(entry as Uint8Array[])));
  }

  // Not refused yet (src/adapters/model/patched.ts): a name may belong to one adapter only.
  it.each<[string, (m: Manifest) => unknown]>([
    ['with an adapter twice', (m) => m.adapters.push(first(m))],
    ['with a site twice', (m) => first(m).sites.push(site(m))],
    ['that claims a weight of the model', (m) => m.initializers.push('w')],
  ])('%s is refused', async (_, change) => {
    const path = await withManifest(change);
    expect(await outcomes(path, ['unpatch', 'merge'])).toEqual(new Set(['invalid-manifest']));
  });

  // Runs for ever (src/commands/unpatch.ts, finalName).
  it('whose adapter gives its layer the name it reads is refused', async () => {
    const nodes = [node('Add', ['p', 'x'], 'p', {}, 'a'), node('Relu', ['x'], 'p', {}, 'r')];
    const path = await withSites(nodes, [{ node: 'n', base: 'p', nodes: ['a'] }]);
    expect(inTime(`unpatch(${JSON.stringify(path)})`)).toBe('invalid-manifest');
  });

  // The text is repeated in the message (src/errors.ts).
  it('with megabytes for a word is refused in one readable line', async () => {
    const path = await withManifest((m) => (first(m).structure = 'a\nb'.repeat(1e6)));
    const { message } = await failure(() => inspect(path), 'invalid-manifest');
    expect(message.length).toBeLessThan(10_000);
  });
});

/** What a call in a process of its own ends with, before long: the code of its error. */
function inTime(call: string): string | undefined {
  const root = new URL('..', import.meta.url).href;
  const modules = ['patch', 'unpatch'].map((name) => `${root}dist/src/commands/${name}.js`);
  const script = `
    const modules = await Promise.all(${JSON.stringify(modules)}.map((path) => import(path)));
    const { patch, unpatch } = Object.assign({}, ...modules);
    let error;
    const start = process.cpuUsage();
    await ${call}.catch(({ code }) => (error = code));
    const { user, system } = process.cpuUsage(start);
    const seconds = (user + system) / 1e6;
    console.log(JSON.stringify({ error, seconds }));`;
  const { stdout, error } = spawnSync(
    process.execPath,
    ['--input-type=module', '--eval', script],
    // Ends what runs for ever, and nothing that only waits for its turn.
    { timeout: 150_000, encoding: 'utf8' },
  );
  if (error) throw error;
  const ended = JSON.parse(stdout) as { error?: string; seconds: number };
  expect(ended.seconds).toBeLessThan(10);
  return ended.error;
}

describe('a graph', () => {
  const linear = (inputs: string[], outputs: string | string[]): ModelParts => ({
    ...chain,
    nodes: [node('MatMul', inputs, outputs, {}, 'n')],
  });

  it.each<[string, ModelParts]>([
    ['whose node reads its own output', linear(['y', 'w'], 'y')],
    ['whose node gives one output twice', linear(['x', 'w'], ['y', 'y'])],
    [
      'with two nodes of one name',
      { ...chain, nodes: chain.nodes.map((n) => ({ ...n, name: 'n' })) },
    ],
    ['with the same input twice', { ...chain, inputs: ['x', 'x', 'w', 'w'] }],
    [
      'with the same initializer twice',
      { ...chain, initializers: [...chain.initializers, tensor('w', [8, 8])] },
    ],
    [
      'with names that JavaScript gives a meaning',
      {
        ...chain,
        nodes: [node('MatMul', ['x', '__proto__'], 'constructor', {}, '__proto__')],
        initializers: [tensor('__proto__', [8, 8])],
      },
    ],
  ])('%s comes back from patch and unpatch', async (_, parts) => {
    const original = files.write(model(parts));
    const [patched, restored] = [files.fresh(), files.fresh()];
    await patch(original, { ...small, output: patched });
    await unpatch(patched, { output: restored });
    expect(readFileSync(restored).equals(readFileSync(original))).toBe(true);
  });

  it.each<[string, ModelParts]>([
    ['whose weight is its own output', linear(['x', 'y'], 'y')],
    [
      'whose weight goes in a circle',
      {
        ...chain,
        nodes: [
          node('Identity', ['a'], 'b'),
          node('Identity', ['b'], 'a'),
          node('MatMul', ['x', 'a'], 'y'),
        ],
      },
    ],
    [
      'whose scales go in a circle',
      {
        ...chain,
        nodes: [
          node('DequantizeLinear', ['b', 'b', 'b'], 'a'),
          node('DequantizeLinear', ['a', 'a', 'a'], 'b'),
          node('MatMul', ['x', 'a'], 'y'),
        ],
      },
    ],
    ['without nodes', { ...chain, nodes: [] }],
  ])('%s has no target', async (_, parts) => {
    const path = files.write(model(parts));
    expect(await outcomes(path, ['patch', 'inspect'])).toEqual(new Set(['no-target', 'works']));
  });

  it('whose weight has more elements than a number can count is refused', async () => {
    const dims = Array(2).fill(2 ** 40);
    const path = files.write(model({ ...chain, initializers: [{ ...tensor('w', [1]), dims }] }));
    expect(await outcome(operations.patch!, path)).not.toBe('works');
  });

  it('that nests a thousand bodies is refused', async () => {
    let inner = bytesField(GraphField.name, 'innermost');
    for (let i = 0; i < 1000; i++) {
      const attribute = bytesField(NodeField.attribute, bytesField(AttributeField.g, inner));
      inner = bytesField(GraphField.node, attribute);
    }
    const path = files.write(concat(varintField(1, 8), bytesField(ModelField.graph, inner)));
    expect(await outcomes(path)).toEqual(new Set(['invalid-model']));
  });

  it('whose external data has a name that is none is refused, also where the output exists', async () => {
    const external = { key: 'location', value: 'w\0.data' };
    const initializers = [
      { name: 'w', dims: [8, 8], dataType: 1, dataLocation: 1, externalData: [external] },
    ];
    const path = files.write(model({ ...chain, initializers }));
    const output = files.write(new Uint8Array(1));
    await failure(() => patch(path, { ...small, output, force: true }), 'external-data');
    expect(statSync(output).size).toBe(1);
  });

  it.each([
    ['is missing', 'nope.data', 'external-data'],
    ['is outside the folder', '../w.data', 'external-data'],
    ['is a folder', 'sub', 'not-a-file'],
  ] as const)(
    'whose external data %s is refused before anything is written',
    async (_, value, code) => {
      const externalData = [{ key: 'location', value }];
      const external = { name: 'w', dims: [8, 8], dataType: 1, dataLocation: 1, externalData };
      const path = files.write(model({ ...linear(['x', 'w'], 'y'), initializers: [external] }));
      mkdirSync(join(dirname(path), 'sub'));
      expect(await outcome(operations.patch!, path)).toBe(code);
      expect(await outcome((p) => patch(p, small), path)).toBe(code);
    },
  );

  // Not refused yet (src/adapters/targets/index.ts): a TypeError.
  it.each<[string, ModelParts]>([
    ['a layer without outputs', linear(['x', 'w'], [])],
    ['a layer without an input', linear(['w'], 'y')],
    [
      'an operator called constructor',
      { ...chain, nodes: [...chain.nodes, node('constructor', ['x'], 'z')] },
    ],
    [
      'an operator called __proto__',
      { ...chain, nodes: [...chain.nodes, node('__proto__', ['x'], 'z')] },
    ],
  ])('with %s ends like any other', async (_, parts) => {
    await outcomes(files.write(model(parts)), ['patch', 'inspect']);
  });

  // An adapter of the claimed size is written (src/adapters/targets/weight.ts).
  it('whose weight has fewer numbers than its shape says has no target', async () => {
    const initializers = [{ ...tensor('w', [8, 8]), dims: [2 ** 17, 8] }];
    const path = files.write(model({ ...linear(['x', 'w'], 'y'), initializers }));
    expect(await outcome(operations.patch!, path)).toBe('no-target');
  });

  // Follows every input of every step (src/graph/constants.ts).
  it('whose Cast nodes have a thousand inputs each is looked through in time', () => {
    const many = (from: string, to: string) => node('Cast', Array(1000).fill(from), to, { to: 1 });
    const nodes = [many('w', 'a'), many('a', 'b'), many('b', 'c'), node('MatMul', ['x', 'c'], 'y')];
    const path = files.write(model({ ...chain, nodes }));
    inTime(`patch(${JSON.stringify(path)})`);
  });

  // The names come into the message as they are (src/errors.ts).
  it('with line breaks in its names is refused in one line', async () => {
    const nodes = [node('MatMul', ['x', 'w'], 'y', {}, 'a\nb')];
    const path = files.write(model({ ...chain, nodes, initializers: [tensor('w', [8])] }));
    expect(await outcome(operations.patch!, path)).toBe('no-target');
  });
});
