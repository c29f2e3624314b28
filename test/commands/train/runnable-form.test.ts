/**
 * Models with what no CPU has kernels for: bfloat16, and norms inside GroupQueryAttention. They train, fold and write
 * as a model that says the same in float32, with the norms as nodes of their own.
 */
import { describe, expect, it } from 'vitest';
import { AdapterSession } from '../../../src/adapters/slots/adapter-session.js';
import { extract } from '../../../src/commands/extract.js';
import { generate } from '../../../src/commands/generate/generate.js';
import { merge } from '../../../src/commands/merge.js';
import { resolveTrainOptions } from '../../../src/commands/options/train.js';
import { patch } from '../../../src/commands/patch.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { dataTypeNumber } from '../../../src/onnx/dtype.js';
import { openModel } from '../../../src/onnx/parse.js';
import { openSession } from '../../../src/runtime/session.js';
import { type Feeds, tensorFromNumbers } from '../../../src/runtime/tensor-value.js';
import { tokenizerPath } from '../../data/text/tokenizers.js';
import { patchFile, trained as withNumbers } from '../../support/adapters.js';
import { decoder } from '../../support/decoders.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { logOf } from '../../training/tiny.js';

const files = temporaryFolder();
const how = { provider: 'cpu', threads: 1 } as const;
const tokenizer = tokenizerPath('unigram');

/** Three tokens, and an empty cache. */
function feeds(): Feeds {
  const row = tensorFromNumbers('int64', [1, 3], Float64Array.of(1, 1, 1));
  const past = tensorFromNumbers('float32', [1, 1, 0, 8], new Float64Array());
  return new Map([
    ...['input_ids', 'attention_mask', 'position_ids'].map((name) => [name, row] as const),
    ...['key', 'value'].map((name) => [`past_key_values.0.${name}`, past] as const),
  ]);
}

/** Patches, trains and folds a model. */
async function trained(bytes: Uint8Array) {
  const base = files.write(bytes, 'base.onnx');
  const { output: patched } = await patch(base, { rank: 4, seed: 3, output: files.fresh() });
  const log = files.fresh('log.jsonl');
  const texts = ['the work is good', 'any software is bad', 'the notice is there', 'it works'];
  const lines = texts.map((text) => `${JSON.stringify({ text })}\n`).join('');
  const result = await runTraining(
    patched,
    resolveTrainOptions({
      ...{ ...how, tokenizer, log, loss: 'causal-lm', steps: 6, batchSize: 2, lr: 0.05 },
      data: files.write(Buffer.from(lines), 'texts.jsonl'),
      output: files.fresh(),
    }),
  );
  const merged = await merge(result.output, { output: files.fresh() });
  const losses = (logOf(log) as { loss: number }[]).map(({ loss }) => loss);
  return { ...result, base, losses, merged };
}

describe.each([
  ['bfloat16', decoder({ floats: 'bfloat16' }), decoder({ floats: 'rounded' })],
  [
    'norms of heads inside attention',
    decoder({ attention: 'gqa', norms: 'inside' }),
    decoder({ attention: 'gqa', norms: 'before' }),
  ],
])('a model with %s', (_, own, twin) => {
  it('does not run as it is', async () => {
    await failure(async () => {
      const session = await openSession(own, { provider: 'cpu' });
      await session.run(feeds());
    }, 'runtime');
  });

  it('trains as its twin, is compared with the file, and its fold is proven', async () => {
    const [found, expected] = [await trained(own), await trained(twin)];
    expect(found.losses).toHaveLength(6);
    for (const [i, loss] of found.losses.entries())
      expect(loss).toBeCloseTo(expected.losses[i]!, 4);
    expect(found.guard).toMatchObject({ passed: true });
    expect(found.merged.verification).toMatchObject({ passed: true, proven: true });
  });

  it('takes adapters in slots as its twin does', async () => {
    const outputs = [own, twin].map(async (bytes) => {
      const base = files.write(bytes, 'base.onnx');
      const { output: slotted } = await patch(base, { slots: true, output: files.fresh() });
      const output = files.fresh();
      await patchFile(base, output, { rank: 4, factors: withNumbers });
      const session = await AdapterSession.open(slotted, how);
      try {
        const adapter = await extract(output, { output: files.fresh('a.safetensors') });
        session.load('a', adapter.output);
        const { data } = (await session.run(feeds(), { adapters: 'a' })).get('logits')!;
        return { passed: session.guard?.passed, logits: [...(data as Float32Array)] };
      } finally {
        await session.release();
      }
    });
    const [found, expected] = await Promise.all(outputs);
    expect(found!.passed).toBe(true);
    expect(Math.max(...found!.logits)).toBeGreaterThan(1);
    for (const [i, value] of found!.logits.entries())
      expect(value).toBeCloseTo(expected!.logits[i]!, 3);
  });

  it('writes what its twin writes', async () => {
    const prompt = 'the model reads';
    const options = { ...how, tokenizer, prompt, maxNewTokens: 8 };
    const texts = [own, twin].map(async (bytes) => {
      const result = await generate(files.write(bytes, 'model.onnx'), options);
      return { text: result.text, cache: result.cache };
    });
    const [found, expected] = await Promise.all(texts);
    expect(found).toEqual(expected);
    expect(found!.cache).toBe(true);
  });
});

it('folds into bfloat16 stay bfloat16', async () => {
  const { merged } = await trained(decoder({ floats: 'bfloat16' }));
  const model = openModel(merged.output);
  const types = [...model.graph.initializers.values()].map(({ dataType }) => dataType);
  model.close();
  expect(types).toContain(dataTypeNumber('bfloat16'));
  expect(types).not.toContain(dataTypeNumber('float32'));
});
