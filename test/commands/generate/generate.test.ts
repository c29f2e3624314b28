/** Models that continue texts and answer conversations: what the cache gives is what whole texts give. */
import { copyFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { extract } from '../../../src/commands/extract.js';
import { generate } from '../../../src/commands/generate/generate.js';
import { TextGenerator } from '../../../src/commands/generate/generator.js';
import type { GeneratorOptions } from '../../../src/commands/generate/options.js';
import { Prompts } from '../../../src/commands/generate/prompt.js';
import { patch } from '../../../src/commands/patch.js';
import { TextTokenizer } from '../../../src/data/text/tokenizer.js';
import { chatTokenizer, template, tokenizerPath } from '../../data/text/tokenizers.js';
import { patchFile, trained } from '../../support/adapters.js';
import { decoder, VOCABULARY } from '../../support/decoders.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { feed, run } from '../../support/run.js';
import { zooModel } from '../../support/zoo.js';

const files = temporaryFolder();
const tokenizer = tokenizerPath('unigram');
const how = { tokenizer, provider: 'cpu', threads: 1, eos: ['1'] } as const;
const PROMPT = 'the model reads its input';
const prompt = TextTokenizer.open(tokenizer).encode([PROMPT], { special: false }).ids;

async function idsOf(path: string, options: GeneratorOptions = {}, maxNewTokens = 12) {
  const generator = await TextGenerator.open(path, { ...how, ...options });
  try {
    return { ...(await generator.complete(PROMPT, { maxNewTokens })), cache: generator.usesCache };
  } finally {
    await generator.release();
  }
}

/** The likeliest tokens, each from a run of the whole text without a cache. */
async function wholeTexts(path: string, count = 12): Promise<number[]> {
  const ids = [...prompt];
  while (ids.length < prompt.length + count) {
    const row = (values: number[]) => feed([1, ids.length], values, 'int64');
    const { logits } = await run(path, {
      input_ids: row(ids),
      attention_mask: row(ids.map(() => 1)),
      position_ids: row([...ids.keys()]),
      'past_key_values.0.key': feed([1, 1, 0, 8], []),
      'past_key_values.0.value': feed([1, 1, 0, 8], []),
    });
    const last = logits!.data.subarray(-logits!.dims.at(-1)!);
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

describe('the likeliest tokens', () => {
  it.each([
    ['attention in single operators', decoder()],
    ['GroupQueryAttention', decoder({ attention: 'gqa' })],
  ])('from the cache are those of whole texts: %s', async (_, bytes) => {
    const path = files.write(bytes);
    const expected = await wholeTexts(path);
    expect(await idsOf(path)).toMatchObject({ ids: expected, cache: true });
    expect(await idsOf(path, { cache: false })).toMatchObject({ ids: expected, cache: false });
  });

  it('come without a cache where there is none', async () => {
    for (const name of ['gpt2-causal', 'llama-causal']) {
      const expected = await wholeTexts(zooModel(name));
      expect(await idsOf(zooModel(name))).toMatchObject({ ids: expected, cache: false });
    }
  });

  it('come from whole texts where the cache is wrong, or no output continues it', async () => {
    const expected = await wholeTexts(files.write(decoder()));
    for (const wrong of [decoder({ forgets: true }), decoder({ present: 'state.a.b' })]) {
      const notes: string[] = [];
      const path = files.write(wrong);
      const found = await idsOf(path, { onNote: (note) => notes.push(note) });
      const isNamed = notes.length === 0;
      expect(found).toMatchObject({ ids: expected, cache: isNamed });
      if (!isNamed) expect(notes).toEqual([expect.stringContaining('computes the whole text')]);
    }
  });
});

describe('an answer', () => {
  it('comes in pieces that are its text', async () => {
    const pieces: string[] = [];
    const path = files.write(decoder());
    const onToken = (piece: string) => pieces.push(piece);
    const result = await generate(path, { ...how, prompt: PROMPT, maxNewTokens: 8, onToken });
    expect(pieces.length).toBeGreaterThan(1);
    expect(pieces.join('')).toBe(result.text);
    const tokens = { prompt: prompt.length, generated: 8 };
    expect(result).toMatchObject({ model: path, prompt: PROMPT, finish: 'length', tokens });
  });

  it('ends at an end token, or before a stop text', async () => {
    const path = files.write(decoder());
    const { ids, text } = await idsOf(path);
    const ended = await idsOf(path, { eos: [String(ids[4])] });
    expect(ended).toMatchObject({ finish: 'eos', ids: ids.slice(0, ids.indexOf(ids[4]!) + 1) });
    const stop = [text.slice(6, 9)];
    const stopped = await generate(path, { ...how, prompt: PROMPT, maxNewTokens: 12, stop });
    expect(stopped).toMatchObject({ finish: 'stop', text: text.slice(0, text.indexOf(stop[0]!)) });
  });

  it('ends where the model has no more positions', async () => {
    const path = files.write(decoder());
    const found = await idsOf(path, {}, 200);
    expect(found).toMatchObject({ finish: 'context', tokens: { generated: 96 - prompt.length } });
    const long = () => generate(path, { ...how, prompt: PROMPT.repeat(20) });
    expect((await failure(long, 'invalid-argument')).message).toMatch(/has \d+ tokens, .* 96 /);
  });

  it('is drawn by seed and temperature', async () => {
    const path = files.write(decoder());
    const drawn = (seed: number, topK = 0) =>
      generate(path, { ...how, prompt: PROMPT, maxNewTokens: 8, temperature: 1, seed, topK });
    const [a, b, c] = [await drawn(1), await drawn(1), await drawn(2)];
    expect(a.text).toBe(b.text);
    expect(c.text).not.toBe(a.text);
    const { text } = await idsOf(path, {}, 8);
    expect((await drawn(1, 1)).text).toBe(text);
  });

  it('stands beside that of another model', async () => {
    const path = files.write(decoder());
    const other = zooModel('gpt2-causal');
    const options = { ...how, prompt: PROMPT, maxNewTokens: 4 };
    const { comparison } = await generate(path, { ...options, compare: other });
    const { text } = await generate(other, options);
    expect(comparison).toMatchObject({ model: other, text, cache: false });
  });
});

describe('a conversation', () => {
  const opened = (chat: unknown, bytes = decoder()) =>
    TextGenerator.open(files.write(bytes), { ...how, tokenizer: chatTokenizer(files, chat) });

  it('is written by the chat template, up to the answer', async () => {
    const generator = await opened(template);
    const { tokens } = await generator.complete([{ role: 'user', content: 'the model' }], {
      maxNewTokens: 2,
    });
    const text = TextTokenizer.open(tokenizer);
    expect(tokens.prompt).toBeGreaterThan(
      text.encode(['the model'], { special: false }).ids.length,
    );
    await generator.release();
  });

  it('ends at the special token that the template writes behind an answer', () => {
    const asked = [{ role: 'user', content: 'hello' }];
    const after = (end: string) => {
      const chat = `{% for m in messages %}{{ m.content }}${end}{% endfor %}`;
      const text = TextTokenizer.open(chatTokenizer(files, chat));
      return new Prompts(text).endOfAnswer(asked).map((id) => id === text.tokenId('<|user|>'));
    };
    expect(['<|user|>', '\n<|user|>\n', ' the end', ''].map(after)).toEqual([
      [true],
      [true],
      [],
      [],
    ]);
  });

  it('without a template is refused', async () => {
    const asked = { ...how, messages: [{ role: 'user', content: 'hello' }] };
    const run = () => generate(files.write(decoder()), asked);
    expect((await failure(run, 'invalid-argument')).message).toContain('has no chat template');
  });
});

describe('a model with slots', () => {
  it('answers with the adapter that is in use', async () => {
    const base = files.write(decoder());
    const [slotted, patched, adapter] = [
      files.fresh(),
      files.fresh(),
      files.fresh('a.safetensors'),
    ];
    await patch(base, { output: slotted, slots: 'required' });
    await patchFile(base, patched, { rank: 4, factors: (a) => trained(a, 3, 1) });
    await extract(patched, { output: adapter });
    const generator = await TextGenerator.open(slotted, { ...how, adapter: [`a=${adapter}`] });
    const answer = async () => (await generator.complete(PROMPT, { maxNewTokens: 12 })).ids;
    const [ofBase, ofPatched] = [await wholeTexts(base), await wholeTexts(patched)];
    expect(ofPatched).not.toEqual(ofBase);
    expect(await answer()).toEqual(ofPatched);
    generator.use(undefined);
    expect(await answer()).toEqual(ofBase);
    generator.use('a');
    expect(await answer()).toEqual(ofPatched);
    expect((await failure(() => generator.use('b'), 'no-adapter')).message).toContain('is: a');
    await generator.release();
  });
});

describe('what cannot generate', () => {
  const asked = { ...how, prompt: PROMPT };
  const layer = (output: string, dims: (string | number)[]) =>
    model({
      nodes: [node('Gather', ['table', 'input_ids'], output)],
      initializers: [tensor('table', [VOCABULARY, 4])],
      inputs: [value('input_ids', ['batch', 'sequence'], 'int64')],
      outputs: [value(output, dims), ...(output === 'h' ? [value('ids', ['batch'])] : [])],
    });

  it.each([
    ['a model of no tokens', () => zooModel('mlp-regression'), /no input input_ids/],
    ['a classifier', () => zooModel('bert-cls-dynamo'), /\[.*\], expected \[batch, tokens/],
  ])('is %s', async (_, path, reason) => {
    expect((await failure(() => generate(path(), asked), 'unsupported')).message).toMatch(reason);
  });

  it('is a tokenizer of another model', async () => {
    const path = files.write(layer('logits', ['batch', 'sequence', 4]));
    const { message } = await failure(() => generate(path, asked), 'invalid-argument');
    expect(message).toMatch(/gives token \d+, the vocabulary of .* has 4$/);
  });

  it('is a model with adapters that has no slots, or no tokenizer beside it', async () => {
    const path = files.write(decoder());
    const { message } = await failure(
      () => generate(path, { ...asked, adapter: ['a=b'] }),
      'invalid-argument',
    );
    expect(message).toContain('has no slots');
    const optional = files.fresh();
    await patch(path, { output: optional, slots: 'optional' });
    const fed = () => generate(optional, { ...asked, adapter: ['a=b'] });
    expect((await failure(fed, 'invalid-argument')).message).toContain('has optional slots');
    const missing = () => generate(path, { ...asked, tokenizer: undefined });
    expect((await failure(missing, 'file-not-found')).hint).toContain('tokenizer.json');
  });
});

it('a model that is missing is named, and not its tokenizer', async () => {
  const missing = () => generate('missing.onnx', { prompt: PROMPT });
  expect((await failure(missing, 'file-not-found')).message).toBe('missing.onnx does not exist');
});

it('end tokens stand in generation_config.json beside the model', async () => {
  const path = files.write(decoder());
  const { ids } = await idsOf(path);
  copyFileSync(join(tokenizer, 'tokenizer.json'), join(dirname(path), 'tokenizer.json'));
  const config = JSON.stringify({ eos_token_id: [ids[3]] });
  writeFileSync(join(dirname(path), 'generation_config.json'), config);
  const found = await idsOf(path, { tokenizer: undefined, eos: undefined });
  expect(found).toMatchObject({ finish: 'eos', ids: ids.slice(0, ids.indexOf(ids[3]!) + 1) });
});
