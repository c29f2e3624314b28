/** Adapters whose modules a builder, or another version of a library, has split or given other names. */
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { inspect } from '../../../src/commands/inspect.js';
import { foldAdapters } from '../../../src/commands/merge.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, pattern, tensor, value } from '../../support/models.js';
import { graloraTensors, loraTensors, type PeftTensors, peftFolder } from '../../support/peft.js';
import { expectClose, feed, run } from '../../support/run.js';

const folder = temporaryFolder();
const IN = 8;

/** Layers of `x`, by module path and width; their outputs side by side. */
function layers(widths: Readonly<Record<string, number>>): string {
  const list = Object.entries(widths);
  return folder.write(
    model({
      nodes: [
        ...list.map(([path], i) =>
          node('MatMul', ['x', `w${i}`], `y${i}`, {}, `/${path.replaceAll('.', '/')}/MatMul`),
        ),
        node(
          'Concat',
          list.map((_, i) => `y${i}`),
          'y',
          { axis: -1 },
        ),
      ],
      initializers: list.map(([, width], i) => tensor(`w${i}`, [IN, width])),
      inputs: [value('x', ['batch', IN])],
      outputs: ['y'],
    }),
  );
}

const LORA = { peft_type: 'LORA', r: 2, lora_alpha: 6 };
const X = { x: feed([3, IN], pattern(3 * IN)) };

function adapter(tensors: PeftTensors, config: object = LORA): string {
  return peftFolder(folder.fresh('peft'), { ...config }, tensors);
}

/** One adapter of a fused module does in its parts what it does in one layer. */
async function expectSplit(
  module: string,
  parts: Record<string, number>,
  tensors: PeftTensors,
  config?: object,
) {
  const total = Object.values(parts).reduce((sum, width) => sum + width, 0);
  const given = adapter(tensors, config);
  const [whole, split] = [layers({ [`m.${module}`]: total }), layers(parts)];
  const [merged, applied] = [folder.fresh(), folder.fresh()];
  const { adapters } = await apply(split, given, { output: applied });
  await foldAdapters(split, { adapter: given, output: merged });
  const reference = folder.fresh();
  await apply(whole, given, { output: reference });
  const change = async (after: string, before: string) => {
    const [one, other] = [(await run(after, X)).y!, (await run(before, X)).y!];
    return { y: { dims: one.dims, data: one.data.map((number, i) => number - other.data[i]!) } };
  };
  const expected = await change(reference, whole);
  expectClose(await change(applied, split), expected, 1e-5);
  expectClose(await change(merged, split), expected, 1e-5);
  return adapters;
}

describe('an adapter of a fused module finds its layers', () => {
  it('gate and up', async () => {
    const parts = { 'm.gate_proj': 8, 'm.up_proj': 8 };
    const adapters = await expectSplit(
      'gate_up_proj',
      parts,
      loraTensors('m.gate_up_proj', [IN, 16]),
    );
    expect(adapters.map(({ name, rank, scale }) => [name, rank, scale])).toEqual([
      ['m.gate_proj', 2, 3],
      ['m.up_proj', 2, 3],
    ]);
  });

  it('queries, and narrower keys and values', async () => {
    const parts = { 'm.q_proj': 8, 'm.k_proj': 4, 'm.v_proj': 4 };
    const adapters = await expectSplit('qkv_proj', parts, loraTensors('m.qkv_proj', [IN, 16]));
    expect(adapters).toHaveLength(3);
  });

  it('in blocks that a layer ends within', async () => {
    const tensors = graloraTensors('m.qkv_proj', [IN, 16], { rank: 4, k: 2 });
    const config = { peft_type: 'GRALORA', r: 4, alpha: 8, gralora_k: 2 };
    await expectSplit('qkv_proj', { 'm.q_proj': 4, 'm.k_proj': 6, 'm.v_proj': 6 }, tensors, config);
  });

  it('but not where sizes do not add up, or a part is missing', async () => {
    const given = adapter(loraTensors('m.gate_up_proj', [IN, 16]));
    const short = layers({ 'm.gate_proj': 8, 'm.up_proj': 4 });
    const wrong = await failure(() => apply(short, given), 'adapter-mismatch');
    expect(wrong.message).toContain('it is 8 x 16, its layers are 8 x 8, 8 x 4');
    const half = layers({ 'm.gate_proj': 8, 'm.other': 8 });
    const missing = await failure(() => apply(half, given), 'adapter-mismatch');
    expect(missing.message).toContain('no such layer');
  });

  it('but not where a part may be any of two', async () => {
    const given = adapter(loraTensors('m.gate_up_proj', [IN, 16]));
    const both = layers({ 'm.gate_proj': 8, 'm.w1': 8, 'm.up_proj': 8 });
    const { message } = await failure(() => apply(both, given), 'adapter-mismatch');
    expect(message).toContain('a part of it may be any of /m/gate_proj/MatMul, /m/w1/MatMul');
  });
});

describe('an adapter of a module with another name finds its layer', () => {
  const genai = ['attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'];
  const built = Object.fromEntries(genai.map((name) => [`model.layers.0.${name}`, IN]));

  it.each([
    { of: 'LFM2', module: 'feed_forward.w1', found: 'mlp.gate_proj' },
    { of: 'LFM2', module: 'feed_forward.w2', found: 'mlp.down_proj' },
    { of: 'LFM2', module: 'feed_forward.w3', found: 'mlp.up_proj' },
    { of: 'LFM2', module: 'self_attn.out_proj', found: 'attn.o_proj' },
    { of: 'Phi', module: 'self_attn.dense', found: 'attn.o_proj' },
    { of: 'Granite', module: 'shared_mlp.output_linear', found: 'mlp.down_proj' },
  ])('of $of by ONNX Runtime GenAI: $module', async ({ module, found }) => {
    const path = layers(built);
    await expectHome(path, `model.layers.0.${module}`, `model.layers.0.${found}`);
  });

  it.each([
    { file: 'decoder', module: 'decoder.layers.0.self_attn.q_proj', found: 'attn.q_proj' },
    {
      file: 'decoder',
      module: 'decoder.layers.0.encoder_attn.out_proj',
      found: 'cross_attn.o_proj',
    },
    { file: 'decoder', module: 'decoder.layers.0.fc1', found: 'mlp.fc1' },
    { file: 'encoder', module: 'encoder.layers.0.fc2', found: 'mlp.fc2' },
    { file: 'encoder', module: 'encoder.layers.0.self_attn.out_proj', found: 'attn.o_proj' },
    { file: 'encoder', module: 'decoder.layers.0.encoder_attn.k_proj', found: 'attn.cross.k_proj' },
  ] as const)(
    'of Whisper by ONNX Runtime GenAI, $file: $module',
    async ({ file, module, found }) => {
      await expectHome(layers(whisper[file]), `model.${module}`, `model.layers.0.${found}`);
    },
  );

  it.each([
    { file: 'decoder', module: 'model.encoder.layers.0.self_attn.out_proj' },
    { file: 'decoder', module: 'model.decoder.layers.0.encoder_attn.k_proj' },
    { file: 'encoder', module: 'model.decoder.layers.0.self_attn.out_proj' },
    { file: 'encoder', module: 'model.decoder.layers.0.fc1' },
  ] as const)("which is not the other file's: $file, $module", async ({ file, module }) => {
    const given = adapter(loraTensors(module, [IN, IN]));
    const path = layers(whisper[file]);
    const { message } = await failure(() => apply(path, given), 'adapter-mismatch');
    expect(message).toContain('no such layer');
  });

  it.each(vitPairs())('of a vision transformer: $older, $newer', async ({ older, newer }) => {
    const all = (side: 'older' | 'newer') =>
      layers(Object.fromEntries(vitPairs().map((pair) => [`vit.${pair[side]}`, IN])));
    await expectHome(all('newer'), `vit.${older}`, `vit.${newer}`);
    await expectHome(all('older'), `vit.${newer}`, `vit.${older}`);
  });
});

const whisper = {
  decoder: widths(
    'attn.q_proj',
    'attn.o_proj',
    'cross_attn.q_proj',
    'cross_attn.o_proj',
    'mlp.fc1',
  ),
  encoder: widths('attn.o_proj', 'mlp.fc1', 'mlp.fc2', 'attn.cross.k_proj', 'attn.cross.v_proj'),
};

function widths(...names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.map((name) => [`model.layers.0.${name}`, IN]));
}

function vitPairs() {
  return [
    ['attention.attention.query', 'attention.q_proj'],
    ['attention.attention.key', 'attention.k_proj'],
    ['attention.output.dense', 'attention.o_proj'],
    ['intermediate.dense', 'mlp.fc1'],
    ['output.dense', 'mlp.fc2'],
  ].map(([older, newer]) => ({ older: `encoder.layer.0.${older}`, newer: `layers.0.${newer}` }));
}

/** Applied, the adapter is beside this layer and no other. */
async function expectHome(path: string, module: string, layer: string): Promise<void> {
  const output = folder.fresh();
  const given = adapter(loraTensors(module, [IN, IN]));
  await apply(path, given, { output });
  const { targets } = await inspect(output);
  const adapted = targets.filter((target) => target.adapter !== null);
  expect(adapted.map((target) => target.module)).toEqual([layer]);
}

describe('an encoder exported alone', () => {
  const own = ['self_attn.q_proj', 'fc1'];
  const tensors = (names: readonly string[]) =>
    Object.assign({}, ...names.map((name) => loraTensors(`model.${name}`, [IN, IN])));
  const encoder = own.map((name) => `encoder.layers.0.${name}`);
  const decoder = [...own, 'encoder_attn.q_proj'].map((name) => `decoder.layers.0.${name}`);
  const exported = Object.fromEntries(own.map((name) => [`layers.0.${name}`, IN]));

  it('finds the adapters of the encoder, not those of a decoder like it', async () => {
    const given = adapter(tensors([...encoder, ...decoder]));
    const how = { output: folder.fresh(), allowUnmatched: true };
    const { adapters, unmatched } = await apply(layers(exported), given, how);
    expect(adapters.map(({ name }) => name)).toEqual(encoder.map((name) => `model.${name}`));
    expect([...unmatched].sort()).toEqual(decoder.map((name) => `model.${name}`).sort());
  });

  it('is not guessed where both would fit as well', async () => {
    const given = adapter(tensors([...encoder, ...decoder.slice(0, 2)]));
    const how = { output: folder.fresh(), allowUnmatched: true };
    const { message } = await failure(
      () => apply(layers(exported), given, how),
      'adapter-mismatch',
    );
    expect(message).toContain('may be any of');
  });
});
