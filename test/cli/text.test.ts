import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { tokenizerPath } from '../data/text/tokenizers.js';
import { insertInto } from '../support/adapters.js';
import { run, temporaryFolder } from './run.js';

const reviews = ['good', 'bad', 'so', 'good'].map((label, i) => ({
  sentence: `the model of number ${i} is ${label}`,
  label,
}));

/** A folder with a patched classifier and reviews, one of which is no JSON. */
async function folderWith(): Promise<string> {
  const folder = temporaryFolder({ 'model.onnx': 'bert-cls-dynamo/model.onnx' });
  const patched = await insertInto(join(folder, 'model.onnx'), { rank: 8 });
  writeFileSync(join(folder, 'model.lora.onnx'), patched);
  const lines = reviews.map((review) => JSON.stringify(review));
  writeFileSync(join(folder, 'reviews.jsonl'), [...lines, '{"sentence"'].join('\n'));
  return folder;
}

const given = ['--data', 'reviews.jsonl', '--tokenizer', tokenizerPath('wordpiece')];
const common = [...given, '--loss', 'cross-entropy', '--provider', 'cpu', '--threads', '1'];

describe('train and eval on texts', () => {
  it('name the first bad row, or leave bad rows out and count them', async () => {
    const folder = await folderWith();
    const steps = ['--steps', '2', '--json'];
    const stopped = await run(folder, ['train', 'model.lora.onnx', ...common, ...steps]);
    expect(stopped.code).toBe(1);
    expect(stopped.stderr).toMatch(
      /error: reviews\.jsonl:5: it is not JSON: .*\n.*--skip-bad-rows/s,
    );

    const skipping = [...common, ...steps, '--skip-bad-rows'];
    const trained = await run(folder, ['train', 'model.lora.onnx', ...skipping]);
    expect(trained.stderr).toMatch(/reviews\.jsonl: texts from sentence, labels from label\n/);
    expect(trained.stderr).toMatch(/reviews\.jsonl: the classes are bad, good, so\n/);
    expect(trained.stderr).toMatch(/left out: reviews\.jsonl:5: it is not JSON/);
    expect(JSON.parse(trained.stdout)).toMatchObject({ steps: 2, skippedRows: 1 });

    const flags = [...common, '--skip-bad-rows', '--text-field', 'sentence', '--max-length', '8'];
    const measured = await run(folder, ['eval', 'model.trained.onnx', ...flags]);
    expect(measured.code).toBe(0);
    expect(measured.stdout).toMatch(/4 samples \(1 bad row left out\) in .* on cpu\n/);
    expect(
      readFileSync(join(folder, 'model.trained.onnx')).includes('"labels":["bad","good","so"]'),
    ).toBe(true);
  });
});
