/** What a model writes as it learns is what `generate` gives of the model that it is by then. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { generate } from '../../../src/commands/generate/generate.js';
import { resolveTrainOptions, type TrainOptions } from '../../../src/commands/options/train.js';
import { runTraining } from '../../../src/commands/train/run.js';
import type { LogRecord, SampleRecord } from '../../../src/training/records.js';
import { chats, chatTokenizer, template, tokenizerPath } from '../../data/text/tokenizers.js';
import { insertInto } from '../../support/adapters.js';
import { decoder } from '../../support/decoders.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { zooModel } from '../../support/zoo.js';

const files = temporaryFolder();
const tokenizer = tokenizerPath('unigram');
const PROMPTS = ['the model', 'the work is'];
const TOKENS = 6;
const how = { provider: 'cpu', threads: 1 } as const;

const rows = (texts: readonly object[]) =>
  files.write(Buffer.from(texts.map((row) => `${JSON.stringify(row)}\n`).join('')), 'data.jsonl');
const texts = () =>
  rows(PROMPTS.flatMap((text) => [{ text: `${text} good` }, { text: `${text} bad` }]));

async function train(model: string, more: Partial<TrainOptions> = {}) {
  const { log = files.fresh('log.jsonl') } = more;
  const options = resolveTrainOptions({
    ...{
      ...how,
      tokenizer,
      log,
      data: texts(),
      loss: 'causal-lm',
      batchSize: 2,
      lr: 0.1,
      steps: 4,
    },
    ...{ output: files.fresh('trained.onnx'), samplePrompt: PROMPTS, sampleTokens: TOKENS },
    ...more,
  });
  const { output } = await runTraining(model, options);
  return { output, records: read(log) };
}

const read = (log: string): LogRecord[] =>
  readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

const looksIn = (records: readonly LogRecord[]): SampleRecord[] =>
  records.filter((record) => 'samples' in record);

async function generated(model: string, prompt: string): Promise<string> {
  const { text } = await generate(model, { ...how, tokenizer, prompt, maxNewTokens: TOKENS });
  return text;
}

const patched = async (base: string | Uint8Array) =>
  files.write(await insertInto(base, { rank: 4 }), 'model.onnx');

describe('a model that trains', () => {
  it.each([
    ['with a cache', () => files.write(decoder(), 'base.onnx')],
    ['without one', () => zooModel('gpt2-causal')],
  ])('writes at the start, on the way and at the end: %s', async (_, base) => {
    const model = await patched(base());
    const { output, records } = await train(model, { sampleEvery: 3 });
    const looks = looksIn(records);
    expect(looks.map(({ step }) => step)).toEqual([0, 3, 4]);
    const of = async (path: string) =>
      await Promise.all(
        PROMPTS.map(async (prompt) => ({ prompt, text: await generated(path, prompt) })),
      );
    expect(looks[0]!.samples).toEqual(await of(model));
    expect(looks[2]!.samples).toEqual(await of(output));
    expect(looks[2]!.samples).not.toEqual(looks[0]!.samples);
  });

  it('learns the same whether it writes or not', async () => {
    const model = await patched(decoder());
    const [writing, silent] = [await train(model), await train(model, silence)];
    expect(looksIn(silent.records)).toEqual([]);
    expect(readFileSync(writing.output).equals(readFileSync(silent.output))).toBe(true);
  });

  it('answers where the rows are conversations', async () => {
    const model = await patched(zooModel('llama-causal'));
    const data = rows(chats.map(({ messages }) => ({ messages })));
    const chat = chatTokenizer(files, template);
    const { records } = await train(model, { data, tokenizer: chat, steps: 1 });
    const messages = [{ role: 'user', content: PROMPTS[0]! }] as const;
    const asked = { ...how, tokenizer: chat, messages, maxNewTokens: TOKENS };
    expect(looksIn(records)[0]!.samples[0]!.text).toBe((await generate(model, asked)).text);
  });

  it('goes on writing where a run was resumed, and not twice at one step', async () => {
    const model = await patched(decoder());
    const log = files.fresh('log.jsonl');
    const checkpoint = files.fresh('checkpoint');
    const more = { log, checkpoint, checkpointEvery: 1, sampleEvery: 1 } as const;
    const controller = new AbortController();
    const onProgress: TrainOptions['onProgress'] = ({ phase, done }) => {
      if (phase === 'training' && done === 2) controller.abort();
    };
    await failure(
      () => train(model, { ...more, onProgress, signal: controller.signal }),
      'aborted',
    );
    await train(model, { ...more, resume: true });
    expect(looksIn(read(log)).map(({ step }) => step)).toEqual([0, 1, 2, 3, 4]);
  });
});

const silence = { samplePrompt: undefined, sampleTokens: undefined } as const;

describe('samples are refused', () => {
  it('of a model that writes no texts', async () => {
    const model = await patched(zooModel('bert-cls-dynamo'));
    const data = rows(['good', 'bad'].map((label) => ({ text: `it is ${label}`, label })));
    const classify = {
      data,
      loss: 'cross-entropy',
      tokenizer: tokenizerPath('wordpiece'),
    } as const;
    const { message } = await failure(() => train(model, classify), 'unsupported');
    expect(message).toMatch(/does not continue texts: its output logits is float32/);
  });

  it('of options without a prompt', async () => {
    const idle = { data: 'data.jsonl', loss: 'causal-lm', sampleEvery: 2 } as const;
    await failure(async () => resolveTrainOptions(idle), 'invalid-argument');
  });
});
