/** The likeliest tokens are those that transformers.js generates with the same file. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AutoModelForCausalLM, AutoTokenizer, env, Tensor } from '@huggingface/transformers';
import { expect, it } from 'vitest';
import { TextGenerator } from '../../../src/commands/generate/generator.js';
import { merge } from '../../../src/commands/merge.js';
import { TextTokenizer } from '../../../src/data/text/tokenizer.js';
import { tokenizerPath } from '../../data/text/tokenizers.js';
import { decoder, VOCABULARY } from '../../support/decoders.js';
import { temporaryFolder } from '../../support/files.js';
import { loraTensors, peftFolder } from '../../support/peft.js';

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

/** What transformers.js generates. */
async function referenceTokens(folder: string, ids: readonly number[]): Promise<number[]> {
  const row = (values: readonly number[]) =>
    new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
  const reference = await AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' });
  const inputs = { input_ids: row(ids), attention_mask: row(ids.map(() => 1)) };
  const found = await reference.generate({ ...inputs, max_new_tokens: maxNewTokens } as never);
  await reference.dispose();
  return Array.from((found as Tensor).data, Number);
}

it.each(['parts', 'gqa'] as const)('with a cache, attention %s', async (attention) => {
  const folder = modelFolder(decoder({ attention }));
  const tokenizer = tokenizerPath('unigram');
  const ids = TextTokenizer.open(tokenizer).encode([PROMPT], { special: false }).ids;
  const expected = await referenceTokens(folder, ids);

  const model = join(folder, 'onnx/model.onnx');
  const generator = await TextGenerator.open(model, { tokenizer, eos: ['1'], provider: 'cpu' });
  const found = await generator.complete(PROMPT, { maxNewTokens });
  await generator.release();
  expect(generator.usesCache).toBe(true);
  expect([...ids, ...found.ids]).toEqual(expected);
});

it('with a folder that merge has written, tokenizer and all', async () => {
  const folder = modelFolder(decoder({ attention: 'gqa' }));
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    copyFileSync(join(tokenizerPath('unigram'), name), join(folder, name));
  }
  const tensors = { ...loraTensors('attn.q', [8, 8]), ...loraTensors('attn.v', [8, 8]) };
  const config = { peft_type: 'LORA', r: 2, lora_alpha: 4 };
  const adapter = peftFolder(files.fresh('peft'), config, tensors);
  const { output } = await merge(folder, { adapter });

  const tokenizer = await AutoTokenizer.from_pretrained(output);
  const ids: number[] = tokenizer.encode(PROMPT, { add_special_tokens: false });
  const expected = await referenceTokens(output, ids);
  expect(expected).not.toEqual(await referenceTokens(folder, ids));
  const generator = await TextGenerator.open(output, { eos: ['1'], provider: 'cpu' });
  const found = await generator.complete(PROMPT, { maxNewTokens });
  await generator.release();
  expect([...ids, ...found.ids]).toEqual(expected);
});
