/** Patched and merged models as drop-ins for a model's own file in transformers.js, from local files. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AutoModel, AutoTokenizer, env, pipeline } from '@huggingface/transformers';
import { describe, expect, it } from 'vitest';
import { foldAdapters } from '../../src/commands/merge.js';
import { patch } from '../../src/commands/patch.js';
import { patchFile, trained } from '../support/adapters.js';
import { temporaryFolder } from '../support/files.js';
import { maxDifference } from '../support/run.js';
import { zooModel } from '../support/zoo.js';

env.allowRemoteModels = false;

const files = temporaryFolder();
const labels = ['bad', 'fair', 'good'];
const sentences = ['the sea is calm', 'a storm is near the coast', 'calm'];

/** Words of a WordPiece tokenizer, by their numbers; the zoo's models know 256. */
const words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'].concat(
  'a the is sea storm calm near coast'.split(' '),
);

/** A tokenizer.json of the words, with [CLS] and [SEP] around a text, as BERT has it. */
function tokenizer(): object {
  const special = (content: string, id: number) => ({
    ...{ id, content, special: true, normalized: false },
    ...{ single_word: false, lstrip: false, rstrip: false },
  });
  const token = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const text = { Sequence: { id: 'A', type_id: 0 } };
  return {
    version: '1.0',
    added_tokens: words.slice(0, 5).map(special),
    normalizer: { type: 'BertNormalizer', lowercase: true, clean_text: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [token('[CLS]'), text, token('[SEP]')],
      pair: [token('[CLS]'), text, token('[SEP]')],
      special_tokens: {
        '[CLS]': { id: '[CLS]', ids: [2], tokens: ['[CLS]'] },
        '[SEP]': { id: '[SEP]', ids: [3], tokens: ['[SEP]'] },
      },
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      ...{ type: 'WordPiece', unk_token: '[UNK]', continuing_subword_prefix: '##' },
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
    },
  };
}

/** A model folder as on the hub, with `model` as its onnx/model.onnx. */
function modelFolder(model: string, config: object): string {
  const folder = dirname(files.fresh());
  const write = (name: string, content: object) =>
    writeFileSync(join(folder, name), JSON.stringify(content));
  write('config.json', { model_type: 'bert', vocab_size: 256, ...config });
  write('tokenizer.json', tokenizer());
  write('tokenizer_config.json', { tokenizer_class: 'BertTokenizer', pad_token: '[PAD]' });
  mkdirSync(join(folder, 'onnx'));
  copyFileSync(model, join(folder, 'onnx/model.onnx'));
  return folder;
}

const options = { dtype: 'fp32', device: 'cpu' } as const;

/** Each sentence's probabilities, in the order of `labels`. */
async function scoresOf(model: string): Promise<number[]> {
  const id2label = Object.fromEntries(labels.entries());
  const config = { architectures: ['BertForSequenceClassification'], id2label };
  const classify = await pipeline('text-classification', modelFolder(model, config), options);
  const results = await classify(sentences, { top_k: labels.length });
  await classify.dispose();
  return results.flatMap((result) => {
    const scores = new Map([result].flat().map(({ label, score }) => [label, score]));
    return labels.map((label) => scores.get(label)!);
  });
}

async function embeddingsOf(path: string): Promise<number[]> {
  const folder = modelFolder(path, { architectures: ['BertModel'] });
  const tokenize = await AutoTokenizer.from_pretrained(folder);
  const model = await AutoModel.from_pretrained(folder, options);
  const outputs = await model(tokenize(sentences, { padding: true }));
  await model.dispose();
  return [...outputs.sentence_embedding.data];
}

describe.each([
  ['bert-cls-torchscript', 'a text-classification pipeline', scoresOf],
  ['minilm-embed', 'sentence embeddings', embeddingsOf],
])('%s, for %s', (name, _, resultsOf) => {
  it('computes the same freshly patched, and with trained adapters what they fold into', async () => {
    const base = zooModel(name);
    const [fresh, adapted, merged] = [files.fresh(), files.fresh(), files.fresh()];
    await patch(base, { output: fresh });
    await patchFile(base, adapted, { factors: (planned) => trained(planned, 3, 0.1) });
    await foldAdapters(adapted, { output: merged });

    const before = await resultsOf(base);
    expect(before.every(Number.isFinite)).toBe(true);
    expect(await resultsOf(fresh)).toEqual(before);
    const after = await resultsOf(adapted);
    expect(maxDifference(await resultsOf(merged), after)).toBeLessThan(1e-5);
    expect(maxDifference(after, before)).toBeGreaterThan(1e-3);
  });
});
