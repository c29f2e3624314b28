import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onnx } from 'onnx-proto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { insertAdapters } from '../../src/adapters/edit/insert.js';
import { type AdapterOptions, planAdapters } from '../../src/adapters/edit/new-adapters.js';
import { PatchedModel } from '../../src/adapters/model/patched.js';
import { chooseLayers } from '../../src/commands/chosen-layers.js';
import { type InspectOptions, inspect } from '../../src/commands/inspect.js';
import { writeModel } from '../../src/commands/output.js';
import { patch } from '../../src/commands/patch.js';
import { openModel } from '../../src/onnx/parse.js';

const zoo = new URL('../fixtures/zoo/', import.meta.url).pathname;
const modelOf = (name: string) => join(zoo, name, 'model.onnx');
const cases = readdirSync(zoo).filter((name) => existsSync(modelOf(name)));

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'inspect-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function modulesOf(name: string): Record<string, { nodes: { node: string; op: string }[] }> {
  return JSON.parse(readFileSync(join(zoo, name, 'map.json'), 'utf8')).modules;
}

/** The model with adapters whose factors are all `value`. */
async function patchWith(value: number, name: string, options: AdapterOptions): Promise<string> {
  const output = join(directory, `${name}.${value}.onnx`);
  const model = openModel(modelOf(name));
  try {
    const patched = new PatchedModel(model);
    const planned = planAdapters(chooseLayers(patched, options).layers, options);
    const filled = planned.map((one) => ({
      ...one,
      values: (factor: Parameters<typeof one.values>[0]) => one.values(factor).fill(value),
    }));
    await writeModel(model, insertAdapters(patched, 'default', filled).edit, output, {
      force: true,
    });
  } finally {
    model.close();
  }
  return output;
}

const failure = (path: string, options?: InspectOptions) =>
  inspect(path, options).then(
    () => expect.unreachable('expected an error'),
    (error) => error,
  );

describe('inspect', () => {
  it.each(cases)('describes %s', async (name) => {
    const result = await inspect(modelOf(name));
    expect(result.model.irVersion).toBeGreaterThan(3);
    expect(result.model.opsets[0]).toEqual({ domain: 'ai.onnx', version: expect.any(Number) });
    expect(result.model.parameters).toBeGreaterThan(100);
    expect(result.inputs.length).toBeGreaterThan(0);
    expect(result.outputs.length).toBeGreaterThan(0);
    expect(result.targets.length).toBeGreaterThan(0);
    for (const { eligible, weight, reason, adapter, adapters } of result.targets) {
      expect(weight === null).toBe(!eligible);
      expect(reason).not.toBe('');
      expect([adapter, adapters]).toEqual([null, []]);
    }
    expect(result.summary).toMatchObject({ adapted: 0, adapterParameters: 0, percent: 0 });
    expect(result.sets).toEqual([]);
    expect(JSON.parse(JSON.stringify(result))).toEqual(result);
  });

  it.each([
    'bert-cls-torchscript',
    'bert-cls-dynamo',
    'gpt2-causal',
    'llama-causal',
    'mlp-regression',
  ])('finds the modules of %s as PyTorch names them, at their nodes', async (name) => {
    const { targets } = await inspect(modelOf(name));
    const found = new Map(targets.map(({ node, module }) => [node, module]));
    for (const [module, { nodes }] of Object.entries(modulesOf(name))) {
      for (const { node } of nodes) expect(found.get(node)).toBe(module);
    }
  });

  it('gives both exporters of one model the same modules', async () => {
    const modules = async (name: string) => {
      const { targets } = await inspect(modelOf(name));
      return targets.filter(({ eligible }) => eligible).map(({ module }) => module);
    };
    const [torchscript, dynamo] = [
      await modules('bert-cls-torchscript'),
      await modules('bert-cls-dynamo'),
    ];
    expect(torchscript).toEqual(dynamo);
    const adaptedByPeft = Object.keys(modulesOf('bert-cls-dynamo'));
    const others = ['bert.pooler.dense', 'classifier'];
    expect(torchscript).toEqual([...adaptedByPeft, ...others]);
  });

  it('says where a weight comes from', async () => {
    const sources = async (name: string) =>
      new Set((await inspect(modelOf(name))).targets.flatMap(({ weight }) => weight?.source ?? []));
    expect(await sources('bert-cls-torchscript')).toContain('initializer');
    expect(await sources('bert-nofold')).toContain('initializer via Transpose');
    expect([...(await sources('bert-qdq'))].join()).toContain('via DequantizeLinear');
    expect(await sources('llama-q4')).toContain('packed (MatMulNBits, 4 bit)');
    const { targets } = await inspect(modelOf('llama-q4'));
    const packed = targets.find(({ op }) => op === 'com.microsoft:MatMulNBits');
    expect(packed?.weight).toMatchObject({ shape: [64, 64], dtype: 'uint8', bytes: (64 * 64) / 2 });
  });

  it('lists a shared weight once for each node', async () => {
    const path = join(directory, 'albert.onnx');
    await patch(modelOf('albert-shared'), { output: path });
    const { targets, sets, summary } = await inspect(path);
    const queries = targets.filter(({ adapter }) => adapter?.name.endsWith('query'));
    expect(queries).toHaveLength(3);
    expect(new Set(queries.map(({ node }) => node)).size).toBe(3);
    expect(new Set(queries.map(({ adapter }) => adapter)).size).toBe(1);
    expect(queries[0]!.reason).toContain('shared by 3 nodes');
    expect(sets[0]!.adapters).toBeLessThan(summary.adapted);
    expect(sets[0]!.parameters).toBe(summary.adapterParameters);
  });
});

describe('inspect of a patched model', () => {
  it('reports what patch said, at norm 0, and no node of the adapters themselves', async () => {
    const base = await inspect(modelOf('bert-cls-torchscript'));
    const path = join(directory, 'fresh.onnx');
    const patched = await patch(modelOf('bert-cls-torchscript'), { output: path });
    const result = await inspect(path);
    const plain = ({ targets }: typeof base) =>
      targets.map(({ adapter, adapters, ...rest }) => rest);
    expect(plain(result)).toEqual(plain(base));
    expect(result.targets.flatMap(({ adapters }) => adapters)).toEqual(patched.adapters);
    expect(result.inputs).toEqual(base.inputs);
    const { trainable, total, percent } = patched.parameters;
    expect(result.model.parameters).toBe(total);
    expect(result.summary).toMatchObject({ adapted: 14, adapterParameters: trainable, percent });
    expect(result.sets).toEqual([
      {
        name: 'default',
        adapters: 14,
        parameters: trainable,
        head: null,
        replaced: [],
        createdBy: expect.stringMatching(/^onnx-lora \d/),
      },
    ]);
  });

  it('measures ΔW', async () => {
    const path = await patchWith(0.5, 'mlp-regression', {
      rank: 8,
      blocks: 2,
      alpha: 4,
      hybrid: 2,
    });
    for (const { weight, adapter } of (await inspect(path)).targets) {
      const [inSize, outSize] = weight!.shape;
      // Every entry of A·B is r · 0.5², that of the global part h · 0.5².
      const entry = adapter!.scale * (adapter!.blockRank + 2) * 0.25;
      expect(adapter!.norm).toBeCloseTo(Math.abs(entry) * Math.sqrt(inSize * outSize), 4);
    }
  });

  it('lists the adapters of several sets', async () => {
    const [one, two] = [join(directory, 'one.onnx'), join(directory, 'two.onnx')];
    await patch(modelOf('mlp-regression'), { output: one, name: 'first' });
    await patch(one, { output: two, name: 'second', targets: ['fc1'], structure: 'global' });
    const { targets, sets } = await inspect(two);
    const both = targets.find(({ module }) => module === 'fc1');
    expect(both?.adapters.map(({ set }) => set)).toEqual(['first', 'second']);
    expect(both?.adapter).toBe(both?.adapters[0]);
    expect(sets.map(({ name, adapters }) => [name, adapters])).toEqual([
      ['first', 3],
      ['second', 1],
    ]);
  });

  it('refuses a manifest whose tensors have other shapes', async () => {
    const path = join(directory, 'damaged.onnx');
    await patch(modelOf('mlp-regression'), { output: path });
    const bytes = readFileSync(path);
    const at = bytes.indexOf('"blockRank":4');
    bytes.write('"blockRank":2', at);
    writeFileSync(path, bytes);
    expect(await failure(path)).toMatchObject({ code: 'invalid-manifest' });
  });
});

describe('inspect and files', () => {
  it('does not need external data', async () => {
    const path = join(directory, 'alone.onnx');
    copyFileSync(modelOf('bert-external-data'), path);
    const alone = await inspect(path);
    expect(alone.model.externalData).toEqual([{ location: 'model.onnx.data', bytes: null }]);
    const whole = await inspect(modelOf('bert-external-data'));
    expect(whole.model.externalData[0]!.bytes).toBeGreaterThan(1000);
    expect(alone.targets).toEqual(whole.targets);
  });

  it('leaves out inputs that are weights, and names nodes without a name as before a patch', async () => {
    const floats = (name: string, dims: number[]) => ({
      name,
      type: { tensorType: { elemType: 1, shape: { dim: dims.map((dimValue) => ({ dimValue })) } } },
    });
    const model = onnx.ModelProto.encode({
      irVersion: 3,
      opsetImport: [{ domain: '', version: 9 }],
      graph: {
        name: 'g',
        node: [{ opType: 'MatMul', input: ['x', 'w'], output: ['y'] }],
        initializer: [{ name: 'w', dims: [4, 4], dataType: 1, floatData: new Array(16).fill(1) }],
        input: [floats('x', [1, 4]), floats('w', [4, 4])],
        output: [floats('y', [1, 4])],
      },
    }).finish();
    const [path, patched] = [join(directory, 'ir3.onnx'), join(directory, 'ir3.lora.onnx')];
    writeFileSync(path, model);
    await patch(path, { output: patched });
    for (const file of [path, patched]) {
      const { inputs, targets } = await inspect(file);
      expect(inputs).toEqual([{ name: 'x', type: 'float32', shape: [1, 4] }]);
      expect(targets).toMatchObject([{ node: 'y', module: 'y', op: 'MatMul' }]);
      expect(targets[0]!.weight?.source).toBe('initializer that is an input too');
    }
  });

  it('writes a page once, and again with force only', async () => {
    const html = join(directory, 'page.html');
    const path = await patchWith(0.25, 'mlp-regression', {
      rank: 8,
      blocks: 2,
      structure: 'diagonal',
    });
    await inspect(path, { html });
    expect(readFileSync(html, 'utf8')).toContain('Where the adapters learned');
    expect(await failure(path, { html })).toMatchObject({ code: 'output-exists' });
    await inspect(path, { html, force: true });
    expect(await failure(path, { html: path, force: true })).toMatchObject({
      code: 'invalid-argument',
    });
  });

  it('names a file that is not there', async () => {
    expect(await failure(join(directory, 'no.onnx'))).toMatchObject({ code: 'file-not-found' });
  });
});
