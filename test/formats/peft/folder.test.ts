/** Folders of PEFT as they are found, and damaged ones: one error, and nothing written. */
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openAdapter } from '../../../src/adapters/files/open-adapter.js';
import { apply } from '../../../src/commands/apply.js';
import type { ErrorCode } from '../../../src/errors.js';
import { encodeSafetensors } from '../../../src/formats/safetensors-output.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import {
  graloraTensors,
  loraTensors,
  type PeftTensors,
  peftFolder,
  peftWeights,
} from '../../support/peft.js';

const folder = temporaryFolder();
const LORA = { peft_type: 'LORA', r: 2, lora_alpha: 4 };
const TENSORS = loraTensors('q', [8, 8]);
const [A, B] = ['base_model.model.q.lora_A.weight', 'base_model.model.q.lora_B.weight'] as const;

const one = () =>
  folder.write(
    model({
      nodes: [node('MatMul', ['x', 'w'], 'y', {}, '/q/MatMul')],
      initializers: [tensor('w', [8, 8])],
      inputs: [value('x', [1, 8])],
      outputs: ['y'],
    }),
  );

const peft = (config: Parameters<typeof peftFolder>[1] = LORA, tensors: PeftTensors = TENSORS) =>
  peftFolder(folder.fresh('peft'), config, tensors);

/** The one line that is said when an adapter is not applied. */
async function refusal(
  adapter: string,
  code: ErrorCode,
): Promise<{ message: string; hint: string }> {
  const output = folder.fresh();
  const { message, hint = '' } = await failure(() => apply(one(), adapter, { output }), code);
  expect(existsSync(output)).toBe(false);
  return { message, hint };
}

describe('an adapter of PEFT is found', () => {
  it('in a sub-folder of its name, which names the set', async () => {
    const parent = folder.fresh('adapters');
    peftFolder(join(parent, 'german'), LORA, TENSORS);
    const file = openAdapter(parent);
    expect(file.set).toBe('german');
    file.close();
  });

  it('whatever its numbers are stored in', async () => {
    const widened = async (dtype: 'bfloat16' | 'float16' | 'float32') => {
      const values = Float64Array.from({ length: 16 }, (_, i) => (i - 8) / 8);
      const tensors = Object.entries(TENSORS).map(([key, { shape }]) => [
        key,
        { shape, values, dtype },
      ]);
      const file = openAdapter(peft(LORA, Object.fromEntries(tensors)));
      const numbers = file.adapters[0]!.values('a');
      file.close();
      return numbers;
    };
    const expected = await widened('float32');
    expect(await widened('bfloat16')).toEqual(expected);
    expect(await widened('float16')).toEqual(expected);
  });

  it('with A and B as ours are: inputs first', () => {
    const tensors = {
      [A]: { shape: [2, 3], values: [1, 2, 3, 4, 5, 6] },
      [B]: { shape: [4, 2], values: [1, 2, 3, 4, 5, 6, 7, 8] },
    };
    const file = openAdapter(peft(LORA, tensors));
    const { record, values } = file.adapters[0]!;
    expect(record).toMatchObject({ in: 3, out: 4, rank: 2, alpha: 4, scale: 2 });
    expect([...values('a')]).toEqual([1, 4, 2, 5, 3, 6]);
    expect([...values('b')]).toEqual([1, 3, 5, 7, 2, 4, 6, 8]);
    file.close();
  });

  it.each([
    [{ use_rslora: true }, 4 / Math.SQRT2],
    [{ rank_pattern: { q: 2 }, r: 64 }, 2],
    [{ alpha_pattern: { q: 7 } }, 3.5],
    [{ rank_pattern: { other: 9 }, alpha_pattern: { other: 9 } }, 2],
  ])('with the scale that %o gives', (fields, scale) => {
    const file = openAdapter(peft({ ...LORA, ...fields }));
    expect(file.adapters[0]!.record.scale).toBeCloseTo(scale, 12);
    file.close();
  });

  it('as the authors of GraLoRA write it', () => {
    const config = { peft_type: 'GRALORA', r: 6, hybrid_r: 2, gralora_k: 2, gralora_alpha: 12 };
    const file = openAdapter(peft(config, graloraTensors('q', [8, 8], { rank: 4, k: 2, h: 2 })));
    expect(file.adapters[0]!.record).toMatchObject({
      ...{ structure: 'localized', grid: [2, 2], rank: 4, blockRank: 2, hybridRank: 2, scale: 2 },
    });
    file.close();
  });

  it('and never the model that its config names', () => {
    const trap = join(folder.fresh('trap'), '..');
    const file = openAdapter(
      peft({ ...LORA, base_model_name_or_path: `../../${trap}/etc/passwd` }),
    );
    expect(file.adapters).toHaveLength(1);
    file.close();
  });
});

describe('a folder is refused', () => {
  it('that is not there', async () => {
    await refusal(join(folder.path, 'missing'), 'file-not-found');
  });

  it('without a config', async () => {
    const path = peft();
    rmSync(join(path, 'adapter_config.json'));
    const { message } = await refusal(path, 'invalid-adapter');
    expect(message).toContain('there is no adapter_config.json in it');
    const file = await refusal(join(path, 'adapter_model.safetensors'), 'invalid-adapter');
    expect(file.hint).toContain('adapter_config.json beside it');
  });

  it('without weights', async () => {
    const path = peft();
    rmSync(join(path, 'adapter_model.safetensors'));
    const { message } = await refusal(path, 'invalid-adapter');
    expect(message).toContain('has no adapter_model.safetensors');
  });

  it('with weights in a pickle only, with the way to convert them', async () => {
    const path = peft();
    rmSync(join(path, 'adapter_model.safetensors'));
    writeFileSync(join(path, 'adapter_model.bin'), 'PK\x03\x04…');
    for (const named of [path, join(path, 'adapter_model.bin')]) {
      const { message, hint } = await refusal(named, 'unsupported');
      expect(message).toContain('is a pickle of PyTorch');
      expect(hint).toContain('save_file(torch.load(');
    }
  });

  it('with several adapters in sub-folders, naming them', async () => {
    const parent = folder.fresh('adapters');
    for (const name of ['de', 'fr']) peftFolder(join(parent, name), LORA, TENSORS);
    const { message } = await refusal(parent, 'invalid-adapter');
    expect(message).toContain('has 2 adapters (de, fr), expected one');
  });

  it('whose config is too large to be one', async () => {
    const { message } = await refusal(peft(' '.repeat(2 ** 24 + 1)), 'invalid-adapter');
    expect(message).toContain('at most 16777216 are read');
  });

  it('whose config is a folder', async () => {
    const path = peft();
    rmSync(join(path, 'adapter_config.json'));
    mkdirSync(join(path, 'adapter_config.json'));
    await refusal(path, 'invalid-adapter');
  });
});

describe('weights are refused', () => {
  const changed = (change: PeftTensors) => peft(LORA, { ...TENSORS, ...change });
  const without = (key: string) =>
    peft(LORA, Object.fromEntries(Object.entries(TENSORS).filter(([name]) => name !== key)));

  it.each<[string, () => string, ErrorCode, string]>([
    ['without a B', () => without(B), 'invalid-adapter', 'q has no lora_B'],
    ['without an A', () => without(A), 'invalid-adapter', 'q has no lora_A'],
    [
      'of another rank than the config says',
      () => peft({ ...LORA, r: 4 }),
      'invalid-adapter',
      `tensor "${A}" has the shape [2, 8], expected [4, 8]`,
    ],
    [
      'whose factors do not fit each other',
      () => changed({ [B]: { shape: [8, 3] } }),
      'invalid-adapter',
      `tensor "${B}" has the shape [8, 3], expected [8, 2]`,
    ],
    [
      'that are no matrices',
      () => changed({ [A]: { shape: [16] } }),
      'invalid-adapter',
      'shape [16]',
    ],
    [
      'of a convolution with a kernel',
      () => changed({ [A]: { shape: [2, 8, 3, 3] }, [B]: { shape: [8, 2, 1, 1] } }),
      'unsupported',
      'a kernel of 3 x 3, expected 1x1',
    ],
    [
      'of the other kind',
      () => peft({ peft_type: 'GRALORA', r: 2, gralora_k: 2 }),
      'invalid-adapter',
      'q has no gralora_A',
    ],
    [
      'without magnitudes for use_dora',
      () => peft({ ...LORA, use_dora: true }),
      'invalid-adapter',
      'q has no lora_magnitude_vector',
    ],
    [
      'with magnitudes for another size',
      () => changed({ 'base_model.model.q.lora_magnitude_vector': { shape: [5] } }),
      'invalid-adapter',
      'has the shape [5], expected [8]',
    ],
    [
      'of several adapters',
      () =>
        changed({
          'base_model.model.k.lora_A.de.weight': { shape: [2, 8] },
          'base_model.model.k.lora_B.fr.weight': { shape: [8, 2] },
        }),
      'invalid-adapter',
      'holds 2 adapters (de, fr)',
    ],
    [
      'with a part twice',
      () => changed({ 'base_model.model.q.lora_A.de.weight': { shape: [2, 8] } }),
      'invalid-adapter',
      'are the same part of one module',
    ],
    [
      'with a key that is none',
      () => changed({ weight: { shape: [2] } }),
      'invalid-adapter',
      '"weight" does not belong',
    ],
    [
      'of another program',
      () => peft(LORA, { 'lora_unet_down.lora_down.weight': { shape: [2, 8] } }),
      'invalid-adapter',
      'expected names like base_model.model.MODULE.lora_A.weight, found "lora_unet_down',
    ],
    ['without any', () => peft(LORA, {}), 'invalid-adapter', 'found no tensor'],
    [
      'with NaN in them',
      () => changed({ [A]: { shape: [2, 8], values: Array(16).fill(Number.NaN) } }),
      'invalid-adapter',
      `tensor "${A}" holds NaN at index 0`,
    ],
    [
      'with infinite numbers',
      () => changed({ [B]: { shape: [8, 2], values: [...Array(15).fill(0), Infinity] } }),
      'invalid-adapter',
      `tensor "${B}" holds Infinity at index 15`,
    ],
  ])('%s', async (_, adapter, code, problem) => {
    expect((await refusal(adapter(), code)).message).toContain(problem);
  });

  const bytes = peftWeights(TENSORS);
  const lying = (length: bigint) => {
    const copy = bytes.slice();
    new DataView(copy.buffer).setBigUint64(0, length, true);
    return copy;
  };

  it.each<[string, Uint8Array, string]>([
    ['cut off in the header', bytes.slice(0, 40), 'is cut short'],
    ['cut off in the numbers', bytes.slice(0, -4), 'ends at byte'],
    ['that say they have a huge header', lying(2n ** 60n), 'are allowed'],
    ['that say they have no header', lying(0n), 'its header starts with'],
    ['empty', new Uint8Array(), 'has 0 bytes'],
  ])('%s', async (_, damaged, problem) => {
    const path = peft();
    writeFileSync(join(path, 'adapter_model.safetensors'), damaged);
    expect((await refusal(path, 'invalid-adapter')).message).toContain(problem);
  });

  it('that are integers', async () => {
    const path = peft();
    const tensors = [A, B].map((name, i) => ({
      ...{ name, dtype: 'int8' as const, shape: i === 0 ? [2, 8] : [8, 2] },
      data: new Uint8Array(16),
    }));
    writeFileSync(join(path, 'adapter_model.safetensors'), encodeSafetensors(tensors));
    expect((await refusal(path, 'invalid-adapter')).message).toContain('has dtype I8');
  });
});

it('reads a folder through a link, as any program does', () => {
  const path = peft();
  const link = join(dirname(folder.fresh('x')), 'link');
  symlinkSync(path, link);
  const file = openAdapter(link);
  expect(file.adapters).toHaveLength(1);
  file.close();
});
