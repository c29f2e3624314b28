/** Adapters as people save them with PEFT, for one model: each comes out as it did in PyTorch. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { merge } from '../../../src/commands/merge.js';
import { unpatch } from '../../../src/commands/unpatch.js';
import { sameFiles, temporaryFolder } from '../../support/files.js';
import { expectClose, run } from '../../support/run.js';
import { ZOO, zooFeeds, zooJson, zooModel, zooTensors, zooValues } from '../../support/zoo.js';

const folder = temporaryFolder();
const MODEL = 'bert-cls-torchscript';

const { adapters } = zooJson<{ adapters: Record<string, object> }>('adapters-extra', 'index.json');

function expected(name: string) {
  return zooTensors(['adapters-extra', name, 'expected.safetensors'], (file) => ({
    logits: zooValues(file, 'logits'),
  }));
}

describe.each(Object.keys(adapters))('%s', (name) => {
  const path = join(ZOO, 'adapters-extra', name);

  it('gives PEFT’s outputs when it is applied, and the model back when it is taken out', async () => {
    const [applied, base] = [folder.fresh(), folder.fresh()];
    const result = await apply(zooModel(MODEL), path, { output: applied });
    expect(result.unmatched).toEqual([]);
    expectClose(await run(applied, zooFeeds(MODEL)), expected(name), 1e-5);
    await unpatch(applied, { output: base });
    expect(sameFiles(base, zooModel(MODEL))).toBe(true);
  });

  it('gives PEFT’s outputs when it is merged', async () => {
    const merged = folder.fresh();
    const result = await merge(zooModel(MODEL), { adapter: path, output: merged });
    expect(result.verification?.passed).toBe(true);
    expectClose(await run(merged, zooFeeds(MODEL)), expected(name), 1e-5);
  });
});

// The weights of the model in other graphs: folded, behind a Transpose, external, of another exporter.
const sameWeights = [
  'bert-cls-dynamo',
  'bert-nofold',
  'bert-dynamo-noopt',
  'bert-external-data',
  'bert-dynamo-external',
  'bert-ort-optimized',
];

const whole = ['modules-to-save', 'bias-lora-only', 'embedding', 'all-linear', 'dora'];
/** The bias of a query that is packed with others is no tensor of its own. */
const inOneOperator = whole.filter((name) => name !== 'bias-lora-only');

describe.each([
  ...sameWeights.map((model) => [model, whole] as const),
  ['bert-ort-attention', inOneOperator] as const,
])('%s', (model, adapters) => {
  it.each(adapters)('takes %s as the first export does', async (name) => {
    const path = join(ZOO, 'adapters-extra', name);
    const [applied, merged] = [folder.fresh(), folder.fresh()];
    await apply(zooModel(model), path, { output: applied });
    await merge(zooModel(model), { adapter: path, output: merged, verify: false });
    for (const made of [applied, merged]) {
      expectClose(await run(made, zooFeeds(model)), expected(name), 1e-5);
    }
  });
});
