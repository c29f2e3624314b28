/** Where adapters of PEFT belong in a model: layers by module path. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { merge } from '../../../src/commands/merge.js';
import { patch } from '../../../src/commands/patch.js';
import { failure, sameFiles, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { loraTensors, type PeftTensors, peftFolder } from '../../support/peft.js';

const folder = temporaryFolder();
const LORA = { peft_type: 'LORA', r: 2, lora_alpha: 4 };

/** A model with a layer of 8 to 8 features at each of the paths. */
function layers(paths: readonly string[], size = 8): string {
  return folder.write(
    model({
      nodes: paths.map((path, i) => node('MatMul', ['x', `w${i}`], `y${i}`, {}, `/${path}/MatMul`)),
      initializers: paths.map((_, i) => tensor(`w${i}`, [8, size])),
      inputs: [value('x', [1, 8])],
      outputs: paths.map((_, i) => `y${i}`),
    }),
  );
}

const lora = (...modules: string[]) =>
  peftFolder(
    folder.fresh('peft'),
    LORA,
    Object.assign({}, ...modules.map((module) => loraTensors(module, [8, 8]))),
  );

/** The names of the layers that took an adapter. */
async function homes(path: string, adapter: string): Promise<string[]> {
  const result = await apply(path, adapter, { output: folder.fresh() });
  return result.adapters.flatMap(({ nodes }) => nodes.map((name) => name.slice(1, -7)));
}

async function refusal(path: string, adapter: string) {
  const output = folder.fresh();
  const error = await failure(() => apply(path, adapter, { output }), 'adapter-mismatch');
  expect(existsSync(output)).toBe(false);
  return error;
}

describe('a module of PEFT finds its layer', () => {
  it('by its path', async () => {
    const path = layers(['layers.0/q', 'layers.1/q', 'layers.1/k']);
    expect(await homes(path, lora('layers.1.q'))).toEqual(['layers.1/q']);
  });

  it('inside a wrapper that the exporter saw', async () => {
    const path = layers(['wrapper/inner/layers.0/q', 'wrapper/inner/layers.1/q', 'wrapper/head']);
    expect(await homes(path, lora('layers.1.q'))).toEqual(['wrapper/inner/layers.1/q']);
  });

  it('in a part of the model that was exported alone', async () => {
    const path = layers(['layers.0/q', 'layers.1/q']);
    expect(await homes(path, lora('bert.encoder.layers.0.q'))).toEqual(['layers.0/q']);
  });

  it('where the user says how paths begin', async () => {
    const path = layers(['text/layers.0/q', 'vision/layers.0/q', 'head']);
    const options = { output: folder.fresh(), peftPrefix: 'clip.inner=vision' };
    const { adapters } = await apply(path, lora('clip.inner.layers.0.q', 'head'), options);
    expect(adapters.flatMap(({ nodes }) => nodes)).toEqual([
      '/vision/layers.0/q/MatMul',
      '/head/MatMul',
    ]);
    const added = { output: folder.fresh(), peftPrefix: '=text' };
    expect((await apply(path, lora('layers.0.q'), added)).adapters).toHaveLength(1);
    const wrong = { output: folder.fresh(), peftPrefix: 'text' };
    await failure(() => apply(path, lora('layers.0.q'), wrong), 'invalid-argument');
  });

  it('under its own path before that of a wrapper', async () => {
    const path = layers(['q', 'other/q']);
    expect(await homes(path, lora('q'))).toEqual(['q']);
  });

  it('and not another one that shares its weight', async () => {
    const path = folder.write(
      model({
        nodes: ['a/MatMul', 'a_1/MatMul', 'b/MatMul'].map((name, i) =>
          node('MatMul', ['x', 'w'], `y${i}`, {}, `/${name}`),
        ),
        initializers: [tensor('w', [8, 8])],
        inputs: [value('x', [1, 8])],
        outputs: ['y0', 'y1', 'y2'],
      }),
    );
    expect(await homes(path, lora('a'))).toEqual(['a', 'a_1']);
    expect(await homes(path, lora('a', 'b'))).toEqual(['a', 'a_1', 'b']);
    const { merged } = await merge(path, { adapter: lora('b'), output: folder.fresh() });
    expect(merged).toMatchObject([{ nodes: ['/b/MatMul'], kind: 'split' }]);
  });

  it('under the names of the model builder of onnxruntime-genai', async () => {
    const path = layers(['model/layers.0/attn/q_proj', 'model/layers.1/attn/q_proj']);
    const found = await homes(path, lora('model.layers.1.self_attn.q_proj'));
    expect(found).toEqual(['model/layers.1/attn/q_proj']);
  });

  it.each([
    ['the folder', (path: string) => path],
    ['the file of weights', (path: string) => join(path, 'adapter_model.safetensors')],
    ['the config', (path: string) => join(path, 'adapter_config.json')],
  ])('whether %s is named', async (_, named) => {
    expect(await homes(layers(['q']), named(lora('q')))).toEqual(['q']);
  });

  it('with patch and merge as with apply', async () => {
    const [path, adapter] = [layers(['q']), lora('q')];
    const [applied, patched] = [folder.fresh(), folder.fresh()];
    await apply(path, adapter, { output: applied });
    const result = await patch(path, { adapter, output: patched });
    expect(result).toMatchObject({ skipped: [], unmatched: [] });
    expect(sameFiles(applied, patched)).toBe(true);
    const { merged, verification } = await merge(path, { adapter, output: folder.fresh() });
    expect(merged.map(({ module }) => module)).toEqual(['q']);
    expect(verification?.passed).toBe(true);
  });
});

describe('an adapter of PEFT is refused', () => {
  it('where any of several layers could be meant', async () => {
    const path = layers(['text/layers.0/q', 'vision/layers.0/q']);
    const error = await refusal(path, lora('layers.0.q'));
    expect(error.message).toContain('layers.0.q may be any of text.layers.0.q, vision.layers.0.q');
  });

  it('where two layers have one path', async () => {
    const path = folder.write(
      model({
        nodes: [
          node('MatMul', ['x', 'w0'], 'h', {}, '/q/MatMul'),
          node('MatMul', ['h', 'w1'], 'y', {}, '/q/MatMul_1'),
        ],
        initializers: [tensor('w0', [8, 8]), tensor('w1', [8, 8])],
        inputs: [value('x', [1, 8])],
        outputs: ['y'],
      }),
    );
    const error = await refusal(path, lora('q'));
    expect(error.message).toContain('q (it may be any of the nodes /q/MatMul, /q/MatMul_1)');
  });

  it('naming every module without a layer, those of one kind together, and what comes near', async () => {
    const path = layers(['layers.0/query', 'layers.1/query', 'layers.0/key']);
    const error = await refusal(
      path,
      lora('layers.0.key', 'layers.0.qury', 'layers.1.qury', 'layers.3.qury', 'pooler.dense'),
    );
    expect(error.message).toContain('4 of 5 adapters have no layer');
    expect(error.message).toMatch(/layers\.\{0-1,3\}\.qury \(no such layer; near: .*query/);
    expect(error.message).toContain('pooler.dense (no such layer');
    expect(error.hint).toContain('`allowUnmatched: true`');
  });

  it('beside layers of another size, whatever is allowed', async () => {
    const options = { output: folder.fresh(), allowUnmatched: true };
    const run = () => apply(layers(['q'], 4), lora('q'), options);
    const { message } = await failure(run, 'adapter-mismatch');
    expect(message).toContain('q (it is 8 x 8, the layer is 8 x 4)');
  });

  it('beside layers that can take none, with the reason', async () => {
    const path = folder.write(
      model({
        nodes: [
          node('com.microsoft:FusedGemm', ['x', 'w'], 'y', { activation: 'Relu' }, '/q/FusedGemm'),
        ],
        initializers: [tensor('w', [8, 8])],
        inputs: [value('x', [1, 8])],
        outputs: ['y'],
      }),
    );
    const { message } = await refusal(path, lora('q'));
    expect(message).toContain('q (an activation is fused into it');
  });

  describe('beside attention whose weights are packed', () => {
    const packed = () => {
      const heads = { num_heads: 2 };
      const attention = (x: string, y: string, name: string) =>
        node('com.microsoft:QAttention', [x, 'w', 'b', 's', 's'], y, heads, name);
      return folder.write(
        model({
          nodes: [attention('x', 'y', 'Attention_0'), attention('y', 'z', 'Attention_1')],
          initializers: [
            tensor('w', [8, 24], undefined, 'int8'),
            tensor('b', [24]),
            tensor('s', [], [0.1]),
          ],
          inputs: [value('x', [1, 2, 8])],
          outputs: ['z'],
        }),
      );
    };

    it('naming the nodes that a query may be packed into', async () => {
      const { message } = await refusal(packed(), lora('layers.0.query'));
      expect(message).toMatch(
        /layers\.0\.query \(no such layer; .*packed attention \(node Attention_0 and 1 more\).*before quantization/,
      );
    });

    it('but not for modules of other names', async () => {
      const { message } = await refusal(packed(), lora('pooler.dense'));
      expect(message).not.toContain('packed attention');
    });
  });
});

describe('`allowUnmatched: true`', () => {
  const path = () => layers(['layers.0/q', 'layers.1/q']);
  const adapter = () => lora('layers.0.q', 'layers.7.q');
  const options = () => ({ allowUnmatched: true, output: folder.fresh() });

  it('leaves out what has no layer, and names it', async () => {
    const { adapters, unmatched } = await apply(path(), adapter(), options());
    expect(adapters.map(({ name }) => name)).toEqual(['layers.0.q']);
    expect(unmatched).toEqual(['layers.7.q']);
    const merged = await merge(path(), { ...options(), adapter: adapter() });
    expect(merged).toMatchObject({ unmatched: ['layers.7.q'], verification: { passed: true } });
    const patched = await patch(path(), { ...options(), adapter: adapter() });
    expect(patched.unmatched).toEqual(['layers.7.q']);
  });

  it('does not make a model of nothing', async () => {
    const run = () => apply(path(), lora('layers.7.q'), options());
    await failure(run, 'adapter-mismatch');
  });

  it('has no effect without adapters of a file, which is said', async () => {
    await failure(() => patch(path(), options()), 'invalid-argument');
    await failure(() => merge(path(), options()), 'invalid-argument');
  });
});

describe('keys', () => {
  const rename = (tensors: PeftTensors, change: (key: string) => string): PeftTensors =>
    Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [change(key), tensor]));

  it.each<[string, (key: string) => string]>([
    ['the adapter’s name', (key) => key.replace('.weight', '.default.weight')],
    ['no prefix of PEFT', (key) => key.replace('base_model.model.', '')],
  ])('may have %s', async (_, change) => {
    const plain = loraTensors('q', [8, 8]);
    const [expected, found] = [folder.fresh(), folder.fresh()];
    const path = layers(['q']);
    await apply(path, peftFolder(folder.fresh('peft'), LORA, plain), { output: expected });
    const changed = peftFolder(folder.fresh('peft'), LORA, rename(plain, change));
    await apply(path, changed, { output: found });
    expect(sameFiles(expected, found)).toBe(true);
  });

  it('give the adapter set its name', async () => {
    const named = rename(loraTensors('q', [8, 8]), (key) => key.replace('.weight', '.de.weight'));
    const adapter = peftFolder(folder.fresh('peft'), LORA, named);
    const { adapters } = await apply(layers(['q']), adapter, { output: folder.fresh() });
    expect(adapters[0]!.set).toBe('de');
  });
});
