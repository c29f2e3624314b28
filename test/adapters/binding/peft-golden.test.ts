/** What Hugging Face PEFT computed for real models, with its adapters read from the folders it wrote. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { foldAdapters } from '../../../src/commands/merge.js';
import { temporaryFolder } from '../../support/files.js';
import type { Expected } from '../../support/golden.js';
import { expectClose, maxAbs, maxDifference, run } from '../../support/run.js';
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

it('has every recorded case', () => {
  expect(goldenCases).toHaveLength(10);
});

describe.each(goldenCases)('%s', (name) => {
  describe.each(['lora', 'gralora'] as const)('%s', (kind) => {
    const { output, modules } = zooJson<Expected>(name, kind, 'expected.json');
    const recorded = (key: string) =>
      zooTensors([name, kind, 'expected.safetensors'], (file) => ({
        [output]: zooValues(file, key),
      }));
    const outputsOf = async (model: string) => {
      const found = await run(model, zooFeeds(name));
      return { [output]: found[output]! };
    };

    it.each([
      ['init', 'logits'],
      ['final', 'final_logits'],
    ])('computes PEFT’s outputs with the adapter %s applied', async (state, key) => {
      const applied = folder.fresh();
      const result = await apply(zooModel(name), join(ZOO, name, kind, state), { output: applied });
      expect(result.adapters).toHaveLength(Object.keys(modules).length);
      expect(result.unmatched).toEqual([]);
      const expected = recorded(key);
      // Trained adapters make outputs of up to 30; float32 has 7 digits.
      const scale = Math.max(1, maxAbs(expected[output]!.data));
      expectClose(await outputsOf(applied), expected, 1e-5 * scale);
      const base = (await run(zooModel(name), zooFeeds(name)))[output]!.data;
      const effect = maxDifference(base, expected[output]!.data);
      expect(effect, 'the adapters change something').toBeGreaterThan(1e-3 * maxAbs(base));
    });

    // Its base is quantized: PEFT folds into another one, made float again.
    if (name === 'llama-q4-causal') return;
    it('computes PEFT’s outputs with the adapter merged', async () => {
      const merged = folder.fresh();
      const adapter = join(ZOO, name, kind, 'init');
      const result = await foldAdapters(zooModel(name), { adapter, output: merged });
      expect(result.unmatched).toEqual([]);
      expectClose(await outputsOf(merged), recorded('merged_logits'), 1e-5);
    });
  });
});

/** Other graphs of the same weights, and how near they come to PyTorch in their own arithmetic. */
const variants: [variant: string, of: string, tolerance: number][] = [
  ['bert-nofold', 'bert-cls-torchscript', 1e-5],
  ['bert-dynamo-noopt', 'bert-cls-torchscript', 1e-5],
  ['bert-external-data', 'bert-cls-torchscript', 1e-5],
  ['bert-dynamo-external', 'bert-cls-torchscript', 1e-5],
  ['bert-ort-optimized', 'bert-cls-torchscript', 1e-5],
  ['bert-ort-attention', 'bert-cls-torchscript', 1e-5],
  ['bert-fp16', 'bert-cls-torchscript', 3e-3],
  ['gpt2-dynamo', 'gpt2-causal', 1e-5],
  ['gpt2-ort-optimized', 'gpt2-causal', 1e-5],
  ['llama-torchscript', 'llama-causal', 1e-5],
];

describe.each(variants)('%s', (variant, name, tolerance) => {
  it.each(['lora', 'gralora'] as const)('takes the %s of the first export', async (kind) => {
    const adapter = join(ZOO, name, kind, 'init');
    const [applied, merged] = [folder.fresh(), folder.fresh()];
    await apply(zooModel(variant), adapter, { output: applied });
    await foldAdapters(zooModel(variant), { adapter, output: merged });
    const { output } = zooJson<Expected>(name, kind, 'expected.json');
    const expected = zooTensors([name, kind, 'expected.safetensors'], (file) => ({
      [output]: zooValues(file, 'logits'),
    }));
    for (const made of [applied, merged]) {
      const found = await run(made, zooFeeds(variant));
      expectClose({ [output]: found[output]! }, expected, tolerance);
    }
  });
});

it('finds the layers of a quantized graph, whose exporter’s names are gone', async () => {
  const adapter = join(ZOO, 'llama-causal/lora/init');
  const { adapters } = await apply(zooModel('llama-q4'), adapter, { output: folder.fresh() });
  expect(adapters.map(({ name, nodes }) => [name, nodes.length])).toEqual(
    Object.keys(zooJson<Expected>('llama-causal', 'lora', 'expected.json').modules)
      .sort()
      .map((name) => [name, 1]),
  );
});
