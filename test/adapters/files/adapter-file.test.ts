/** Adapters out of one model and into another: extract and apply. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { patch } from '../../../src/commands/patch.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import { encodeSafetensors } from '../../../src/formats/safetensors-output.js';
import { type InsertOptions, insertInto, patchFile, trained } from '../../support/adapters.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, node, tensor } from '../../support/models.js';
import { zooModel } from '../../support/zoo.js';

const folder = temporaryFolder();
const OPTIONS = { factors: trained, blocks: 2, rank: 4 };

/** Layers of 8 to 8 features under these modules, the first two with one weight. */
function layers(modules = ['one', 'two', 'three'], outSize = 8): Uint8Array {
  return model({
    nodes: modules.map((name, i) =>
      node('MatMul', ['x', i < 2 ? 'w' : `w${i}`], `y${i}`, {}, `/net/${name}/MatMul`),
    ),
    initializers: [tensor('w', [8, outSize]), tensor('w2', [8, outSize])],
    inputs: ['x'],
    outputs: modules.map((_, i) => `y${i}`),
  });
}

/** A patched model and its adapters in a file. */
async function extracted(base = layers(), options: InsertOptions = {}) {
  const patched = folder.write(await insertInto(base, { ...OPTIONS, ...options }));
  const adapter = folder.fresh('adapter.safetensors');
  return { patched, adapter, result: await extract(patched, { output: adapter }) };
}

describe('an adapter file', () => {
  it.each<[string, InsertOptions]>([
    ['shared', {}],
    ['per node', { perNode: true }],
    ['beside one of the nodes of a weight', { perNode: true, targets: ['two'] }],
    ['hybrid and named', { hybrid: 3, name: 'tuned', scaling: 'rslora', structure: 'diagonal' }],
  ])('gives the same model when it is applied to its base: %s', async (_, options) => {
    const { patched, adapter } = await extracted(layers(), options);
    const output = folder.fresh();
    await apply(folder.write(layers()), adapter, { output });
    expect(sameFiles(output, patched)).toBe(true);
  });

  it.each(['bert-cls-dynamo', 'albert-shared', 'llama-q4-causal', 'bert-fp16', 'wav2vec2-ctc'])(
    'gives the same model when it is applied to its base: %s',
    async (name) => {
      const [patched, output] = [folder.fresh(), folder.fresh()];
      const adapter = folder.fresh('adapter.safetensors');
      await patchFile(zooModel(name), patched, { factors: trained });
      await extract(patched, { output: adapter });
      await apply(zooModel(name), adapter, { output });
      expect(sameFiles(output, patched)).toBe(true);
    },
  );

  it('says what is in it', async () => {
    const { result } = await extracted();
    expect(result).toMatchObject({
      format: 'safetensors',
      set: 'default',
      adapters: ['net.one', 'net.three'],
      parameters: 2 * 4 * 16,
    });
  });

  it('fits a model of another exporter, by module path', async () => {
    const { adapter, patched } = {
      adapter: folder.fresh('adapter.safetensors'),
      patched: folder.fresh(),
    };
    const options = { factors: trained, targets: ['re:.*(query|key|value)'] };
    await patchFile(zooModel('bert-cls-torchscript'), patched, options);
    const { adapters } = await extract(patched, { output: adapter });
    const applied = await apply(zooModel('bert-cls-dynamo'), adapter, { output: folder.fresh() });
    expect(applied.adapters.map(({ name }) => name)).toEqual(adapters);
    expect(applied.adapters.every(({ norm }) => norm > 0)).toBe(true);
  });

  it('takes the set’s name with it, unless another is given', async () => {
    const { adapter } = await extracted(layers(), { name: 'tuned' });
    const [once, twice] = [folder.fresh(), folder.fresh()];
    const first = await apply(folder.write(layers()), adapter, { output: once });
    expect(first.adapters[0]!.set).toBe('tuned');
    const second = await apply(once, adapter, { output: twice, name: 'again' });
    expect(second.adapters[0]!.set).toBe('again');
    const back = folder.fresh();
    await unpatch(twice, { output: back });
    expect(readFileSync(back).equals(layers())).toBe(true);
  });
});

describe('applying is refused', () => {
  it('to a model with other layers, naming what comes near', async () => {
    const { adapter } = await extracted();
    const other = folder.write(layers(['one', 'two', 'thre']));
    const output = folder.fresh();
    const error = await failure(() => apply(other, adapter, { output }), 'adapter-mismatch');
    expect(error.message).toContain(
      '1 of 2 adapters have no layer: net.three (no such layer; near: net.thre',
    );
    expect(existsSync(output)).toBe(false);
  });

  it('to a model with layers of another size', async () => {
    const { adapter } = await extracted();
    const other = folder.write(layers(undefined, 4));
    const error = await failure(
      () => apply(other, adapter, { output: folder.fresh() }),
      'adapter-mismatch',
    );
    expect(error.message).toContain('net.one (it is 8 x 8, the layer is 8 x 4)');
  });

  it('with a tensor that is not the one the manifest calls for, or is missing', async () => {
    const { adapter } = await extracted();
    const { metadata, tensors } = contents(adapter);
    const changed = (name: string, shape: number[]) =>
      tensors.map((t) => (t.name === name ? { ...t, shape } : t));
    const applyOf = (list: typeof tensors) =>
      failure(
        () =>
          apply(
            folder.write(layers()),
            folder.write(encodeSafetensors(list, metadata), 'a.safetensors'),
            { output: folder.fresh() },
          ),
        'invalid-adapter',
      );
    expect((await applyOf(changed('net.one.A', [4, 8]))).message).toContain(
      'expected tensor "net.one.A" of shape [2, 4, 4], found [4, 8]',
    );
    expect((await applyOf(tensors.filter((t) => t.name !== 'net.three.B'))).message).toContain(
      'expected tensor "net.three.B" of shape [2, 4, 4], found none',
    );
  });

  it.each([Number.NaN, Number.NEGATIVE_INFINITY])('with %f in it', async (bad) => {
    const { adapter } = await extracted();
    const { metadata, tensors } = contents(adapter);
    const b = tensors.find(({ name }) => name === 'net.three.B')!;
    new DataView(b.data.buffer, b.data.byteOffset).setFloat32(4 * 5, bad, true);
    const damaged = folder.write(encodeSafetensors(tensors, metadata), 'damaged.safetensors');
    const output = folder.fresh();
    const error = await failure(
      () => apply(folder.write(layers()), damaged, { output }),
      'invalid-adapter',
    );
    expect(error.message).toContain(`tensor "net.three.B" holds ${bad} at index 5`);
    expect(existsSync(output)).toBe(false);
  });

  it('with a file that is not ours', async () => {
    const other = encodeSafetensors([], { format: 'pt' });
    const path = folder.write(other, 'model.safetensors');
    const error = await failure(
      () => apply(folder.write(layers()), path, { output: folder.fresh() }),
      'invalid-adapter',
    );
    expect(error.message).toContain('is not an adapter file of onnx-lora');
  });

  it('with a manifest that is damaged', async () => {
    const manifest = JSON.stringify({ version: 1, set: 's', createdBy: '', adapters: [{}] });
    const bytes = encodeSafetensors([], { format: 'onnx-lora', manifest });
    await failure(
      () => apply(folder.write(layers()), folder.write(bytes, 'a.safetensors')),
      'invalid-manifest',
    );
  });
});

/** The tensors of an adapter file, to change and write again. */
function contents(path: string) {
  const file = openSafetensors(path);
  const tensors = [...file.tensors].map(([name, { dtype, shape }]) => ({
    name,
    dtype,
    shape,
    data: file.read(name).slice(),
  }));
  file.close();
  return { metadata: file.metadata, tensors };
}

describe('extracting is refused', () => {
  it('where there is nothing to extract', async () => {
    const output = folder.fresh('a.safetensors');
    await failure(() => extract(folder.write(layers()), { output }), 'no-adapter');
  });

  it('where there are several sets and none is named', async () => {
    const { patched } = await extracted();
    const both = folder.fresh();
    await patch(patched, { output: both, name: 'second' });
    const output = folder.fresh('a.safetensors');
    const error = await failure(() => extract(both, { output }), 'invalid-argument');
    expect(error.message).toContain('has 2 adapter sets (default, second)');
    expect((await extract(both, { output, name: 'second' })).set).toBe('second');
  });

  it('to a file whose ending names no format', async () => {
    const { patched } = await extracted();
    await failure(() => extract(patched, { output: folder.fresh('a.bin') }), 'invalid-argument');
  });
});
