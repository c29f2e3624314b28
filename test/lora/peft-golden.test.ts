/** What Hugging Face PEFT computed for real models, with its adapters put in by hand. */
import { describe, expect, it } from 'vitest';
import { foldAdapters } from '../../src/lora/merge.js';
import { temporaryFolder } from '../support/files.js';
import { type Expected, goldenModel } from '../support/golden.js';
import { expectClose, maxAbs, maxDifference, run } from '../support/run.js';
import { goldenCases, zooFeeds, zooJson, zooModel, zooTensors, zooValues } from '../support/zoo.js';

const folder = temporaryFolder();

it('has every recorded case', () => {
  expect(goldenCases).toHaveLength(10);
});

describe.each(goldenCases)('%s', (name) => {
  describe.each(['lora', 'gralora'] as const)('%s', (kind) => {
    const { output } = zooJson<Expected>(name, kind, 'expected.json');
    const recorded = (key: string) =>
      zooTensors([name, kind, 'expected.safetensors'], (file) => ({
        [output]: zooValues(file, key),
      }));

    it('computes PEFT’s outputs', async () => {
      const found = await run(await goldenModel(name, kind), zooFeeds(name));
      const expected = recorded('logits');
      expectClose({ [output]: found[output]! }, expected, 1e-5);
      const base = (await run(zooModel(name), zooFeeds(name)))[output]!.data;
      const effect = maxDifference(base, expected[output]!.data);
      expect(effect, 'the adapters change something').toBeGreaterThan(1e-3 * maxAbs(base));
    });

    // Its base is quantized: PEFT folds into another one, made float again.
    if (name === 'llama-q4-causal') return;
    it('computes PEFT’s outputs when it is merged', async () => {
      const merged = folder.fresh();
      await foldAdapters(folder.write(await goldenModel(name, kind)), { output: merged });
      const found = await run(merged, zooFeeds(name));
      expectClose({ [output]: found[output]! }, recorded('merged_logits'), 1e-5);
    });
  });
});
