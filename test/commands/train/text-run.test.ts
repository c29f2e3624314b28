import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { apply } from '../../../src/commands/apply.js';
import { type EvaluateOptions, evaluate } from '../../../src/commands/evaluate.js';
import { merge } from '../../../src/commands/merge.js';
import { resolveTrainOptions, type TrainOptions } from '../../../src/commands/options/train.js';
import { runTraining } from '../../../src/commands/train/run.js';
import { safetensors } from '../../data/data.js';
import { chats, chatTokenizer, template, tokenizerPath } from '../../data/text/tokenizers.js';
import { insertInto } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, pattern, tensor, value } from '../../support/models.js';
import { zooModel } from '../../support/zoo.js';
import { logOf } from '../../training/tiny.js';

const folder = temporaryFolder();

const SUBJECTS = ['the model', 'a licence', 'the work', 'this file', 'any software', 'the notice'];
const VERDICTS = { good: ['is good', 'works well'], bad: ['is bad', 'fails'], so: ['is there'] };

/** Texts whose last words say their class. */
function reviews(count: number): object[] {
  return Array.from({ length: count }, (_, i) => {
    const label = (['good', 'bad', 'so'] as const)[i % 3]!;
    const subjects = SUBJECTS.slice(i % 4, (i % 4) + 1 + (i % 3)).join(' and ');
    return { text: `${subjects} ${VERDICTS[label][i % VERDICTS[label].length]}`, label };
  });
}

function jsonl(rows: readonly (object | string)[]): string {
  const lines = rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row)));
  return folder.write(Buffer.from(`${lines.join('\n')}\n`), 'data.jsonl');
}

const common = { provider: 'cpu', threads: 1, batchSize: 6 } as const;

async function patchedModel(name: string): Promise<string> {
  return folder.write(await insertInto(zooModel(name), { rank: 8 }), 'model.onnx');
}

function train(model: string, more: Partial<TrainOptions> & Pick<TrainOptions, 'data' | 'loss'>) {
  const output = folder.fresh('trained.onnx');
  const tokenizer = tokenizerPath('wordpiece');
  return runTraining(
    model,
    resolveTrainOptions({ ...common, lr: 0.01, tokenizer, output, ...more }),
  );
}

function measure(model: string, more: Partial<EvaluateOptions> & Pick<EvaluateOptions, 'data'>) {
  const tokenizer = tokenizerPath('wordpiece');
  return evaluate(model, { ...common, loss: 'cross-entropy', tokenizer, ...more });
}

it('what is remarked about a file is said once where it is read twice', async () => {
  const data = jsonl(reviews(12));
  const notes: string[] = [];
  await train(await patchedModel('bert-cls-dynamo'), {
    ...{ data, evalData: data, loss: 'cross-entropy', steps: 1 },
    onNote: (text) => notes.push(text),
  });
  expect(notes.filter((text) => text.includes('texts from text'))).toHaveLength(1);
  expect(new Set(notes).size).toBe(notes.length);
});

describe('a classifier of texts', () => {
  it('learns, and its classes keep their names and numbers wherever it goes', async () => {
    const [base, model] = [zooModel('bert-cls-dynamo'), await patchedModel('bert-cls-dynamo')];
    const saveAdapter = folder.fresh('adapter.safetensors');
    const data = jsonl(reviews(48));
    const run = await train(model, {
      data,
      loss: 'cross-entropy',
      lr: 0.003,
      epochs: 20,
      saveAdapter,
    });
    expect(run.skippedRows).toBe(0);

    // With the names in another order in the file, and one of them alone.
    const other = jsonl(
      reviews(48)
        .filter((_, i) => i % 3 < 2)
        .reverse(),
    );
    const trained = await measure(run.output, { data: other });
    expect(trained.accuracy).toBeGreaterThan(0.9);
    const merged = folder.fresh('merged.onnx');
    await merge(run.output, { output: merged, verify: false });
    const applied = folder.fresh('applied.onnx');
    await apply(base, saveAdapter, { output: applied });
    for (const path of [merged, applied]) {
      const { loss, accuracy } = await measure(path, { data: other });
      expect(accuracy).toBe(trained.accuracy);
      expect(loss).toBeCloseTo(trained.loss, 4);
    }
  });

  it('that has no name for a label says which row has it', async () => {
    const model = await patchedModel('bert-cls-dynamo');
    const data = jsonl(reviews(12));
    const { output } = await train(model, { data, loss: 'cross-entropy', steps: 1 });
    const bad = jsonl([...reviews(3), { text: 'the model', label: 'god' }]);
    const { message, hint } = await failure(() => measure(output, { data: bad }), 'invalid-data');
    expect(message).toMatch(/data\.jsonl:4: its label is "god", expected one of bad, good, so/);
    expect(hint).toMatch(/Is it good\?/);
    const { samples, skippedRows } = await measure(output, { data: bad, skipBadRows: true });
    expect({ samples, skippedRows }).toEqual({ samples: 3, skippedRows: 1 });
  });

  it('with fewer outputs than the data have classes is told before the first step', async () => {
    const rows = ['a', 'b', 'c', 'd'].map((label) => ({ text: 'the model', label }));
    const model = await patchedModel('bert-cls-dynamo');
    const run = train(model, { data: jsonl(rows), loss: 'cross-entropy', steps: 1 });
    const { message, hint } = await failure(() => run, 'invalid-data');
    expect(message).toMatch(/key labels holds 0 to 3, expected 0 to 2 \(3 classes\)/);
    expect(hint).toMatch(/`head: linear:/);
  });
});

describe('a run on texts', () => {
  it('with the tokenizer of a larger model is told before the first step', async () => {
    const model = await patchedModel('bert-cls-dynamo');
    const given = { data: jsonl(reviews(6)), loss: 'cross-entropy', steps: 1 } as const;
    const run = train(model, { ...given, tokenizer: tokenizerPath('byte-level') });
    const { message, hint } = await failure(() => run, 'invalid-data');
    expect(message).toMatch(/key input_ids holds 0 to 399, expected 0 to 255 \(rows of the table/);
    expect(hint).toMatch(/tokenizer of this model/);
  });

  it('that was stopped in the middle of an epoch goes on with the same samples', async () => {
    const model = await patchedModel('bert-cls-dynamo');
    const rows = [...reviews(20), 'no JSON', ...reviews(33).slice(20), '{"text": "no label"}'];
    const given = { data: jsonl(rows), loss: 'cross-entropy', skipBadRows: true } as const;
    const [whole, parts] = [folder.fresh('whole.jsonl'), folder.fresh('parts.jsonl')];
    const run = await train(model, { ...given, steps: 9, log: whole, schedule: 'constant' });
    expect(run.skippedRows).toBe(2);

    const checkpoint = folder.fresh('checkpoint');
    const controller = new AbortController();
    const onProgress = ({ phase, done }: { phase: string; done: number }) => {
      if (phase === 'training' && done === 4) controller.abort();
    };
    const interrupted = {
      ...given,
      steps: 9,
      schedule: 'constant',
      checkpoint,
      log: parts,
    } as const;
    const first = train(model, { ...interrupted, onProgress, signal: controller.signal });
    await failure(() => first, 'aborted');
    const resumed = await train(model, { ...interrupted, resume: true });
    expect(logOf(parts)).toEqual(logOf(whole));
    expect(readFileSync(resumed.output).equals(readFileSync(run.output))).toBe(true);
  });

  it('is not resumed with another tokenizer', async () => {
    const model = await patchedModel('bert-cls-dynamo');
    const given = { data: jsonl(reviews(12)), loss: 'cross-entropy', steps: 1 } as const;
    const checkpoint = folder.fresh('checkpoint');
    await train(model, { ...given, checkpoint });
    const tokenizer = tokenizerPath('unigram');
    const other = train(model, { ...given, checkpoint, resume: true, tokenizer });
    const { message } = await failure(() => other, 'checkpoint');
    expect(message).toMatch(/recipe was text\+label by tokenizer [0-9a-f]{12} in 64 tokens/);
  });
});

describe('a language model', () => {
  it.each(['gpt2-causal', 'llama-causal'])('%s learns plain texts', async (name) => {
    const model = await patchedModel(name);
    const data = jsonl(reviews(24));
    const more = {
      data,
      loss: 'causal-lm',
      epochs: 4,
      tokenizer: tokenizerPath('unigram'),
    } as const;
    const { loss } = await train(model, more);
    expect(loss!.last).toBeLessThan(loss!.first * 0.7);
  });
});

describe('a language model in a conversation', () => {
  it('is asked for what the assistant says alone', async () => {
    const length = Math.max(...chats.map(({ ids }) => ids.length));
    const padded = (row: readonly number[], padding: number) =>
      Array.from({ length }, (_, i) => row[i] ?? padding);
    const of = (row: (chat: (typeof chats)[number]) => readonly number[], padding: number) =>
      [
        'int64',
        [chats.length, length],
        chats.flatMap((chat) => padded(row(chat), padding)),
      ] as const;
    const arrays = safetensors({
      input_ids: of(({ ids }) => ids, 0),
      attention_mask: of(({ ids }) => ids.map(() => 1), 0),
      labels: of(({ ids, answers }) => ids.map((id, i) => (answers[i] === 1 ? id : -100)), -100),
    });
    const path = zooModel('llama-causal');
    const loss = 'causal-lm';
    const ofArrays = { data: folder.write(arrays, 'x.safetensors'), tokenizer: undefined };
    const expected = await measure(path, { ...ofArrays, loss });
    const tokenizer = chatTokenizer(folder, template);
    const data = jsonl(chats.map(({ messages }) => ({ messages })));
    const found = await measure(path, { data, loss, tokenizer });
    expect(found.loss).toBeCloseTo(expected.loss, 6);
    expect(found.perplexity).toBeCloseTo(expected.perplexity!, 3);
  });
});

describe('an encoder of sentences', () => {
  it('learns which texts belong together', async () => {
    const model = await patchedModel('minilm-embed');
    const rows = SUBJECTS.map((text, i) => ({ anchor: text, positive: `${text} is number ${i}` }));
    const data = jsonl(rows);
    const run = await train(model, { data, loss: 'mnr', epochs: 20, evalData: data });
    expect(run.loss!.last).toBeLessThan(run.loss!.first);
    expect(run.eval!['recall@1']).toBeGreaterThan(0.8);
  });
});

describe('a decoder with a cache', () => {
  const small = (count: number) => pattern(count).map((x) => x / 16);

  /** Adds what the mask leaves of all tokens to each one, and gives logits. */
  function decoder(hasCache: boolean): Uint8Array {
    const cache = 'past_key_values.0.key';
    return model({
      nodes: [
        node('Gather', ['table', 'input_ids'], 'x'),
        node('Unsqueeze', ['x', 'one'], 'key'),
        hasCache
          ? node('Concat', [cache, 'key'], 'present', { axis: 2 })
          : node('Identity', ['key'], 'present'),
        node('Cast', ['attention_mask'], 'mask', { to: 1 }),
        node('Unsqueeze', ['mask', 'ends'], 'weights'),
        node('MatMul', ['weights', 'present'], 'sum'),
        node('Squeeze', ['sum', 'one'], 'context'),
        node('Add', ['x', 'context'], 'h'),
        node('MatMul', ['h', 'w'], 'logits', {}, 'head'),
      ],
      initializers: [
        tensor('table', [256, 8], small(256 * 8)),
        tensor('w', [8, 256], small(8 * 256)),
        tensor('one', [1], [1], 'int64'),
        tensor('ends', [2], [1, 2], 'int64'),
      ],
      inputs: [
        value('input_ids', ['batch', 'tokens'], 'int64'),
        value('attention_mask', ['batch', hasCache ? 'before + tokens' : 'tokens'], 'int64'),
        ...(hasCache ? [value(cache, ['batch', 1, 'before', 8])] : []),
      ],
      outputs: [value('logits', ['batch', 'tokens', 256])],
    });
  }

  it('learns with an empty one, as it does without', async () => {
    const data = jsonl(reviews(13));
    const tokenizer = tokenizerPath('unigram');
    const runs = [true, false].map(async (hasCache) => {
      const options = { rank: 4, blocks: 1, targets: ['all'] };
      const path = folder.write(await insertInto(decoder(hasCache), options));
      return train(path, { data, loss: 'causal-lm', steps: 12, tokenizer });
    });
    const [empty, none] = await Promise.all(runs);
    expect(empty!.loss!.last).toBeLessThan(empty!.loss!.first);
    expect(empty!.loss!.first).toBeCloseTo(none!.loss!.first, 5);
    expect(empty!.loss!.last).toBeCloseTo(none!.loss!.last, 4);
  });
});
