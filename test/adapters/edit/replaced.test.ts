/** Constants of a model that have other numbers with an adapter set, and its own without it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { inspect } from '../../../src/commands/inspect.js';
import { merge } from '../../../src/commands/merge.js';
import type { MergeOptions } from '../../../src/commands/unmerged.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { type DataTypeName, fromFloat64, isConvertible } from '../../../src/onnx/dtype.js';
import type { NewTensor } from '../../../src/onnx/encode.js';
import { type InsertOptions, insertInto, patchFile, trained } from '../../support/adapters.js';
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
import { expectClose, expectSame, feed, maxDifference, run } from '../../support/run.js';
import { zooFeeds, zooModel } from '../../support/zoo.js';

const { onnx } = onnxProto;
const folder = temporaryFolder();
const OPTIONS = { rank: 2, blocks: 1, factors: trained };
const X = { x: feed([2, 3], [1, -2, 3, 0.5, 2, -1]) };
const NEW = [3, -1, 0.25];

/** A model of x [2, 3] that multiplies with w and adds b, one way or another. */
function addsB(parts: { nodes?: NodeProto[]; b?: TensorProto; opset?: number } = {}): Uint8Array {
  const { nodes = [], b, opset = 17 } = parts;
  return model({
    opset,
    nodes: [
      ...nodes,
      node('MatMul', ['x', 'w'], 'h', {}, 'layer'),
      node('Add', ['h', 'b'], 'y', {}, 'sum'),
    ],
    initializers: [tensor('w', [3, 3]), ...(b ? [b] : []), tensor('rest', [2])],
    inputs: [value('x', [2, 3])],
    outputs: ['y'],
  });
}

function newTensor(
  name: string,
  values: readonly number[],
  dtype: DataTypeName = 'float32',
  dims: readonly number[] = [values.length],
): NewTensor {
  const numbers = Float64Array.from(values);
  const data = isConvertible(dtype)
    ? fromFloat64(dtype, numbers)
    : new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  return { name, dtype, dims, data };
}

/** The file with adapters and new tensors in it. */
async function replaced(
  base: string,
  tensors: readonly NewTensor[],
  options: InsertOptions = {},
): Promise<string> {
  const output = folder.fresh();
  await patchFile(base, output, { ...OPTIONS, ...options, extras: { tensors } });
  return output;
}

/** The structure of a file, without the numbers of its weights. */
function withoutNumbers(path: string): unknown {
  const { graph, ...rest } = onnx.ModelProto.decode(readFileSync(path));
  for (const t of graph!.initializer!) {
    t.rawData = new Uint8Array();
    t.floatData = [];
  }
  for (const n of graph!.node!) {
    for (const a of n.attribute!) if (a.t) a.t.rawData = new Uint8Array();
  }
  return JSON.parse(JSON.stringify({ graph, ...rest }));
}

async function merged(path: string, options: MergeOptions = {}): Promise<string> {
  const output = folder.fresh();
  const { verification } = await merge(path, { output, ...options });
  expect(verification!.passed).toBe(true);
  return output;
}

const { rawData: _, ...shell } = tensor('b', [3]);
const FORMS: [string, () => Uint8Array][] = [
  ['an initializer', () => addsB({ b: tensor('b', [3]) })],
  ['a Constant', () => addsB({ nodes: [constant('b', tensor('', [3]), 'its node')] })],
  ['typed fields', () => addsB({ b: { ...shell, floatData: [1, 2, 3], docString: 'kept' } })],
  [
    'an initializer that is an input, as before IR 4',
    () => addsB({ b: tensor('b', [3]), opset: 8 }),
  ],
  ['a Constant before IR 4', () => addsB({ nodes: [constant('b', tensor('', [3]))], opset: 8 })],
];

describe('a new tensor', () => {
  it.each(FORMS)('stands for %s, which comes back bit for bit', async (_, make) => {
    const base = folder.write(make());
    const path = await replaced(base, [newTensor('b', NEW)]);
    const adapted = folder.write(await insertInto(base, OPTIONS));
    const [before, after] = [await run(adapted, X), await run(path, X)];
    const b = (await run(base, { x: feed([2, 3], Array(6).fill(0)) })).y!.data;
    const expected = before.y!.data.map((number, i) => number - b[i % 3]! + NEW[i % 3]!);
    expect(maxDifference(after.y!.data, expected)).toBeLessThan(1e-5);
    const { output } = await unpatch(path, { output: folder.fresh() });
    expect(sameFiles(output, base)).toBe(true);
  });

  it.each(FORMS)('takes the place of %s for good when it is folded', async (_, make) => {
    const base = folder.write(make());
    const path = await replaced(base, [newTensor('b', NEW)]);
    const result = await merge(path, { output: folder.fresh() });
    expect(result).toMatchObject({ replaced: ['b'], verification: { passed: true } });
    const { output } = result;
    expectClose(await run(output, X), await run(path, X), 1e-6);
    if (!make.toString().includes('floatData')) {
      expect(withoutNumbers(output)).toEqual(withoutNumbers(base));
    }
  });

  it('may be of half precision, or of integers', async () => {
    const base = folder.write(
      model({
        nodes: [
          node('Cast', ['b'], 'b32', { to: 1 }),
          node('MatMul', ['x', 'w'], 'h'),
          node('Add', ['h', 'b32'], 's'),
          node('Gather', ['s', 'index'], 'y', { axis: 1 }),
        ],
        initializers: [
          tensor('w', [3, 3]),
          tensor('b', [3], [0, 0, 0], 'float16'),
          tensor('index', [2], [0, 1], 'int64'),
        ],
        inputs: [value('x', [2, 3])],
        outputs: ['y'],
      }),
    );
    const tensors = [newTensor('b', NEW, 'float16'), newTensor('index', [2, 2], 'int64')];
    const path = await replaced(base, tensors);
    const { y } = await run(path, X);
    expect(y!.data[0]).toBe(y!.data[1]);
    expectSame(await run(await merged(path), X), await run(path, X));
    const { output } = await unpatch(path, { output: folder.fresh() });
    expect(sameFiles(output, base)).toBe(true);
    const scaled = () => merge(path, { scale: 0.5, output: folder.fresh() });
    expect((await failure(scaled, 'unsupported')).message).toContain('index');
  });

  it('stands for external data, and is in the data file of the merged model', async () => {
    const entries = { location: 'b.bin', offset: '0', length: '12' };
    const externalData = Object.entries(entries).map(([key, text]) => ({ key, value: text }));
    const base = folder.write(addsB({ b: { ...shell, dataLocation: 1, externalData } }));
    const data = join(dirname(base), 'b.bin');
    writeFileSync(data, fromFloat64('float32', Float64Array.of(1, 2, 3)));
    const path = await replaced(base, [newTensor('b', NEW)]);
    expect(sameFiles(`${path}.data`, data)).toBe(true);
    const output = await merged(path);
    expect(readFileSync(`${output}.data`).byteLength).toBe(12);
    expectClose(await run(output, X), await run(path, X), 1e-6);
    const back = await unpatch(path, { output: folder.fresh() });
    expect(sameFiles(back.output, base)).toBe(true);
  });

  it('takes the fold where it is the weight of an adapted layer', async () => {
    const base = folder.write(addsB({ b: tensor('b', [3]) }));
    const w = newTensor('w', [1, 0, 2, 0, 1, 0, -1, 0, 1], 'float32', [3, 3]);
    const path = await replaced(base, [w]);
    const output = await merged(path);
    expect(withoutNumbers(output)).toEqual(withoutNumbers(base));
    const plain = await replaced(base, [w], { factors: (adapters) => [...adapters] });
    const [folded, without] = [await run(output, X), await run(plain, X)];
    expect(maxDifference(folded.y!.data, without.y!.data)).toBeGreaterThan(0.01);
  });

  it('stays with the nodes without adapter where the weight has to be split', async () => {
    const base = folder.write(
      model({
        nodes: [
          node('MatMul', ['x', 'w'], 'h', {}, 'one'),
          node('MatMul', ['h', 'w'], 'y', {}, 'two'),
        ],
        initializers: [tensor('w', [3, 3])],
        inputs: [value('x', [2, 3])],
        outputs: ['y'],
      }),
    );
    const w = newTensor('w', [1, 0, 2, 0, 1, 0, -1, 0, 1], 'float32', [3, 3]);
    const one = await replaced(base, [w], { targets: ['one'], perNode: true });
    await merged(one);
    const each = await replaced(base, [w], { perNode: true });
    const { graph } = onnx.ModelProto.decode(readFileSync(await merged(each)));
    expect(graph!.initializer!.map(({ name }) => name)).toEqual(['w_merged', 'w_merged_1']);
  });

  it('goes as far as the scale of a merge says', async () => {
    const base = folder.write(addsB({ b: tensor('b', [3], [1, 1, 1]) }));
    const path = await replaced(base, [newTensor('b', [2, 3, 5])]);
    const at = async (scale: number) => (await run(await merged(path, { scale }), X)).y!.data;
    const [none, half, full] = [await at(0), await at(0.5), await at(1)];
    expect(maxDifference(none, (await run(base, X)).y!.data)).toBe(0);
    expect(
      maxDifference(
        half,
        none.map((v, i) => (v + full[i]!) / 2),
      ),
    ).toBeLessThan(1e-5);
  });

  it('travels in an adapter file, into the base and into a merged model', async () => {
    const base = folder.write(addsB({ b: tensor('b', [3]) }));
    const path = await replaced(base, [newTensor('b', NEW)]);
    const adapter = folder.fresh('adapter.safetensors');
    const { parameters } = await extract(path, { output: adapter });
    expect(parameters).toBe(2 * (3 + 3) + 3);
    const applied = await apply(base, adapter, { output: folder.fresh() });
    expect(sameFiles(applied.output, path)).toBe(true);
    expect(sameFiles(await merged(base, { adapter }), await merged(path))).toBe(true);
    const undo = () => merge(base, { adapter, scale: -1, output: folder.fresh() });
    expect((await failure(undo, 'unsupported')).message).toContain('b');
  });

  it('is one of many in a real model', async () => {
    const base = zooModel('bert-dynamo-noopt');
    const bias = onnx.ModelProto.decode(readFileSync(base)).graph!.initializer!.find(
      ({ dims, dataType }) => dims!.length === 1 && dataType === 1,
    )!;
    const size = Number(bias.dims![0]);
    const path = await replaced(base, [newTensor(bias.name!, Array(size).fill(0.5))]);
    await merged(path);
    const { output } = await unpatch(path, { output: folder.fresh() });
    expect(sameFiles(output, base)).toBe(true);
    expect(await run(path, zooFeeds('bert-dynamo-noopt'))).not.toEqual(
      await run(base, zooFeeds('bert-dynamo-noopt')),
    );
  });

  it('is listed by inspect, and counted once', async () => {
    const base = folder.write(addsB({ b: tensor('b', [3]) }));
    const adapted = folder.write(await insertInto(base, OPTIONS));
    const [before, after] = [
      await inspect(adapted),
      await inspect(await replaced(base, [newTensor('b', NEW)])),
    ];
    expect(after.sets[0]!.replaced).toEqual(['b']);
    expect(after.model.parameters).toBe(before.model.parameters);
  });
});

describe('two adapter sets', () => {
  it('each replace tensors of their own, and come off one by one', async () => {
    const base = folder.write(addsB({ b: tensor('b', [3]) }));
    const one = await replaced(base, [newTensor('b', NEW)], { name: 'one' });
    const w = newTensor('w', Array(9).fill(1), 'float32', [3, 3]);
    const both = await replaced(one, [w], { name: 'two' });
    const first = await unpatch(both, { name: 'one', output: folder.fresh() });
    const last = await unpatch(first.output, { output: folder.fresh() });
    expect(sameFiles(last.output, base)).toBe(true);
    await merged(both, { name: 'one' });
    await merged(both);
  });

  it('cannot replace the same one', async () => {
    const base = folder.write(addsB({ b: tensor('b', [3]) }));
    const one = await replaced(base, [newTensor('b', NEW)], { name: 'one' });
    const again = () => replaced(one, [newTensor('b', NEW)], { name: 'two' });
    const error = await failure(again, 'unsupported');
    expect(error.message).toMatch(/"one" replaced b/);
    expect(error.hint).toContain('merge(model, { name: "one" })');
  });
});

describe('a tensor without a counterpart', () => {
  const base = () =>
    model({
      nodes: [
        node('MatMul', ['x', 'w'], 'h', {}, 'layer'),
        node('If', ['yes'], 'y', {
          then_branch: {
            graph: body({
              nodes: [node('Add', ['h', 'inner'], 't')],
              initializers: [tensor('inner', [3])],
              outputs: ['t'],
            }),
          },
          else_branch: { graph: body({ nodes: [node('Identity', ['h'], 'e')], outputs: ['e'] }) },
        }),
      ],
      initializers: [tensor('w', [3, 3]), tensor('yes', [], [1], 'bool')],
      inputs: [value('x', [2, 3])],
      outputs: ['y'],
    });
  const square = (dtype: DataTypeName, ...dims: number[]) =>
    newTensor('w', Array(dims.reduce((a, b) => a * b)).fill(1), dtype, dims);

  it.each<[string, readonly NewTensor[], string]>([
    ['has a name that nothing has', [newTensor('none', NEW)], 'found none'],
    ['is inside the body of a branch', [newTensor('inner', NEW)], 'found none'],
    ['is computed', [newTensor('h', NEW)], 'found what layer computes'],
    ['is an input', [newTensor('x', NEW)], 'found none'],
    ['has another type', [square('float16', 3, 3)], 'found float32 [3, 3]'],
    ['has another shape', [square('float32', 9)], 'expected a constant w of float32 [9]'],
    ['comes twice', [square('float32', 3, 3), square('float32', 3, 3)], 'found it twice'],
  ])('is refused: it %s', async (_, tensors, message) => {
    const path = folder.write(base());
    const error = await failure(() => replaced(path, tensors), 'adapter-mismatch');
    expect(error.message).toContain(message);
  });

  it('is refused: it belongs to an adapter set', async () => {
    const path = folder.write(await insertInto(base(), OPTIONS));
    const a = newTensor('lora/default/layer/A', Array(6).fill(0), 'float32', [3, 2]);
    const error = await failure(() => replaced(path, [a], { name: 'two' }), 'adapter-mismatch');
    expect(error.message).toContain('one of an adapter set');
  });
});

describe('a manifest of replaced tensors that cannot be right', () => {
  it.each<[string, (text: string) => string]>([
    ['names a tensor that is not there', (text) => text.replace('"tensor":"b"', '"tensor":"c"')],
    ['sets aside one that is read', (text) => text.replace(/"original":"[^"]*"/, '"original":"w"')],
    [
      'sets aside one of another shape',
      (text) => text.replace(/"original":"[^"]*"/, '"original":"rest"'),
    ],
    ['names one twice', (text) => text.replace(/"original":"[^"]*"/, '"original":"b"')],
  ])('is told: it %s', async (_, change) => {
    const path = await replaced(folder.write(addsB({ b: tensor('b', [3]) })), [
      newTensor('b', NEW),
    ]);
    const decoded = onnx.ModelProto.decode(readFileSync(path));
    for (const entry of decoded.metadataProps!) entry.value = change(entry.value!);
    const damaged = folder.write(onnx.ModelProto.encode(decoded).finish());
    await failure(() => unpatch(damaged, { output: folder.fresh() }), 'invalid-manifest');
  });
});
