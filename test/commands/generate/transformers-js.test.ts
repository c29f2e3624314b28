/** The likeliest tokens are those that transformers.js generates with the same file. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AutoModelForCausalLM, env, Tensor } from '@huggingface/transformers';
import { expect, it } from 'vitest';
import { TextGenerator } from '../../../src/commands/generate/generator.js';
import { TextTokenizer } from '../../../src/data/text/tokenizer.js';
import { tokenizerPath } from '../../data/text/tokenizers.js';
import { decoder, VOCABULARY } from '../../support/decoders.js';
import { temporaryFolder } from '../../support/files.js';

env.allowRemoteModels = false;

const files = temporaryFolder();
const PROMPT = 'the model reads its input';
const maxNewTokens = 24;

/** A model folder as on the hub. */
function modelFolder(bytes: Uint8Array): string {
  const folder = dirname(files.fresh());
  const sizes = { hidden_size: 8, num_attention_heads: 1, num_hidden_layers: 1, head_dim: 8 };
  const config = { model_type: 'llama', vocab_size: VOCABULARY, ...sizes };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  mkdirSync(join(folder, 'onnx'));
  writeFileSync(join(folder, 'onnx/model.onnx'), bytes);
  return folder;
}

it.each(['parts', 'gqa'] as const)('with a cache, attention %s', async (attention) => {
  const folder = modelFolder(decoder({ attention }));
  const tokenizer = tokenizerPath('unigram');
  const ids = TextTokenizer.open(tokenizer).encode([PROMPT], { special: false }).ids;
  const row = (values: readonly number[]) =>
    new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
  const reference = await AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' });
  const inputs = { input_ids: row(ids), attention_mask: row(ids.map(() => 1)) };
  const expected = await reference.generate({ ...inputs, max_new_tokens: maxNewTokens } as never);
  await reference.dispose();

  const model = join(folder, 'onnx/model.onnx');
  const generator = await TextGenerator.open(model, { tokenizer, eos: ['1'], provider: 'cpu' });
  const found = await generator.complete(PROMPT, { maxNewTokens });
  await generator.release();
  expect(generator.usesCache).toBe(true);
  expect([...ids, ...found.ids]).toEqual(Array.from((expected as Tensor).data, Number));
});
