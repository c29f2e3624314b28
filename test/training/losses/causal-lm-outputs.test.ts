/** Outputs of language models that are not the logits of all tokens. */
import { expect, test } from 'vitest';
import { evaluate } from '../../../src/commands/evaluate.js';
import { safetensors } from '../../data/data.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';

const files = temporaryFolder();
const how = { loss: 'causal-lm', provider: 'cpu', threads: 1 } as const;
const ids = [1, 2, 7, 3];
const data = safetensors({ input_ids: ['int64', [1, 4], ids], labels: ['int64', [1, 4], ids] });

test('logits of the last token alone are refused as such', async () => {
  const pruned = model({
    nodes: [
      node('Gather', ['table', 'input_ids'], 'h'),
      node('Slice', ['h', 'last', 'end', 'axis'], 'row'),
      node('MatMul', ['row', 'w'], 'logits', {}, 'head'),
    ],
    initializers: [
      ...[tensor('table', [9, 4]), tensor('w', [4, 9]), tensor('axis', [1], [1], 'int64')],
      ...[tensor('last', [1], [-1], 'int64'), tensor('end', [1], [99], 'int64')],
    ],
    inputs: [value('input_ids', ['batch', 'sequence'], 'int64')],
    outputs: [value('logits', ['batch', 1, 9])],
  });
  const run = () =>
    evaluate(files.write(pruned), { ...how, data: files.write(data, 'a.safetensors') });
  const { message, hint } = await failure(run, 'invalid-argument');
  expect(message).toBe(
    'the output logits holds the logits of the last token only, [batch, 1, vocabulary]; the loss causal-lm predicts every token from the one before',
  );
  expect(hint).toContain('without prune_lm_head');
});

test('states in the place of logits are suspected where a token is beyond them', async () => {
  const headless = model({
    nodes: [node('Gather', ['table', 'input_ids'], 'hidden_states')],
    initializers: [tensor('table', [9, 4])],
    inputs: [value('input_ids', ['batch', 'sequence'], 'int64')],
    outputs: [value('hidden_states', ['batch', 'sequence', 4])],
  });
  const run = () =>
    evaluate(files.write(headless), { ...how, data: files.write(data, 'b.safetensors') });
  const { message } = await failure(run, 'invalid-data');
  expect(message).toContain(
    'found 7, expected 0 to 3 (4 classes; the model looks up 9 tokens, so its output is not logits of them: it may lack the head)',
  );
});
