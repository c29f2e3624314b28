/** Decoders with a cache: the loss looks at the logits, and arrays get what texts would. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../../src/commands/evaluate.js';
import { defaultOutput } from '../../src/training/default-output.js';
import { safetensors } from '../data/data.js';
import { tokenizerPath } from '../data/text/tokenizers.js';
import { insertInto } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { model, node, tensor, value } from '../support/models.js';
import { trainTiny } from './tiny.js';

const files = temporaryFolder();
const POSITIONS = 6;
const VOCABULARY = 600;

/** h = (table[ids] + places[positions]) · mask, beside a cache that h is put behind; logits h·W. */
function decoder(headSize: string | number = 'kv_cache_dim'): Uint8Array {
  const cache = ['batch', 1, 'past_sequence_length', headSize];
  return model({
    nodes: [
      node('Gather', ['table', 'input_ids'], 'tokens'),
      node('Gather', ['places', 'position_ids'], 'where'),
      node('Add', ['tokens', 'where'], 'sum'),
      node('Cast', ['attention_mask'], 'shown', { to: 1 }),
      node('Unsqueeze', ['shown', 'last'], 'column'),
      node('Mul', ['sum', 'column'], 'h'),
      node('Unsqueeze', ['h', 'one'], 'heads'),
      node('Concat', ['past_key_values.0.key', 'heads'], 'present.0.key', { axis: 2 }),
      node('MatMul', ['h', 'w'], 'logits', {}, 'head'),
    ],
    initializers: [
      ...[tensor('table', [VOCABULARY, 4]), tensor('places', [POSITIONS, 4])],
      ...[tensor('w', [4, VOCABULARY]), tensor('one', [1], [1], 'int64')],
      tensor('last', [1], [-1], 'int64'),
    ],
    inputs: [
      value('input_ids', ['batch', 'sequence'], 'int64'),
      value('attention_mask', ['batch', 'sequence'], 'int64'),
      value('position_ids', ['batch', 'sequence'], 'int64'),
      value('past_key_values.0.key', cache),
    ],
    outputs: [
      value('logits', ['batch', 'sequence', VOCABULARY]),
      value('present.0.key', ['batch', 1, 'total', 4]),
    ],
  });
}

const ids = [1, 2, 3, 4, 5, 6, 7, 8];
const mask = [1, 1, 1, 1, 0, 1, 1, 1];
const ofIds = { input_ids: ['int64', [2, 4], ids] } as const;
const whole = {
  ...ofIds,
  attention_mask: ['int64', [2, 4], mask],
  position_ids: ['int64', [2, 4], [0, 1, 2, 3, 0, 0, 1, 2]],
  'past_key_values.0.key': ['float32', [2, 1, 0, 4], []],
} as const;

const dataOf = (columns: object) => files.write(safetensors(columns as never), 'data.safetensors');
const how = { loss: 'causal-lm', provider: 'cpu', threads: 1 } as const;

describe('arrays for a decoder', () => {
  it.each([
    ['of open head size', 'kv_cache_dim'],
    ['of fixed head size', 4],
  ])('may leave out positions and a cache %s, which texts leave empty', async (_, headSize) => {
    const path = files.write(decoder(headSize));
    const { position_ids: _p, 'past_key_values.0.key': _c, ...some } = whole;
    const expected = await evaluate(path, { ...how, data: dataOf(whole) });
    const found = await evaluate(path, { ...how, data: dataOf(some) });
    expect(found.loss).toBe(expected.loss);
  });

  it('may be ids alone: then all of them are text', async () => {
    const path = files.write(decoder());
    const all = { ...whole, attention_mask: ['int64', [2, 4], 1] };
    const positions = ['int64', [2, 4], [0, 1, 2, 3, 0, 1, 2, 3]];
    const expected = await evaluate(path, {
      ...how,
      data: dataOf({ ...all, position_ids: positions }),
    });
    expect((await evaluate(path, { ...how, data: dataOf(ofIds) })).loss).toBe(expected.loss);
  });

  it('may have their padding on the left', async () => {
    const path = files.write(decoder());
    const padded = (ids: number[], mask: number[]) => ({
      input_ids: ['int64', [2, 4], ids],
      attention_mask: ['int64', [2, 4], mask],
    });
    const right = padded([5, 6, 7, 0, 1, 2, 3, 4], [1, 1, 1, 0, 1, 1, 1, 1]);
    const left = padded([0, 5, 6, 7, 1, 2, 3, 4], [0, 1, 1, 1, 1, 1, 1, 1]);
    const expected = await evaluate(path, { ...how, data: dataOf(right) });
    const found = await evaluate(path, { ...how, data: dataOf(left) });
    expect(found.loss).toBeCloseTo(expected.loss, 5);
  });

  it('train, too', async () => {
    const patched = await insertInto(decoder(), { rank: 2, blocks: 1, targets: ['all'] });
    const run = { model: files.write(patched), data: dataOf(ofIds) };
    const { loss } = await trainTiny(files, run, { loss: 'causal-lm', steps: 5, batchSize: 2 });
    expect(loss!.last).toBeLessThan(loss!.first);
  });
});

it('texts are no longer than the table of positions', async () => {
  const path = files.write(decoder());
  const rows = ['one', 'the other'].map((word) => JSON.stringify({ text: `${word} `.repeat(20) }));
  const data = files.write(Buffer.from(`${rows.join('\n')}\n`), 'texts.jsonl');
  const options = { ...how, data, tokenizer: tokenizerPath('unigram') };
  expect((await evaluate(path, options)).loss).toBeGreaterThan(0);
  const longer = () => evaluate(path, { ...options, maxLength: POSITIONS + 1 });
  expect((await failure(longer, 'invalid-data')).message).toContain('position_ids');
});

it.each([
  [['logits', 'present.0.key', 'present.0.value'], 'logits'],
  [['present_key_values.0', 'scores'], 'scores'],
  [['logits', 'present_0', 'past_key_values.1'], 'logits'],
  [['present'], 'present'],
  [['h', 'y'], undefined],
  [['logits', 'last_hidden_state'], 'logits'],
  [['start_logits', 'end_logits'], undefined],
])('of the outputs %j a loss looks at %j', (outputs, expected) => {
  expect(defaultOutput(outputs)).toBe(expected);
});
