import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { insertInto } from '../support/adapters.js';
import { zooSamples } from '../support/samples.js';
import { run, temporaryFolder } from './run.js';

/** A folder with the zoo's small BERT classifier and 40 samples. */
function folderWithData(): string {
  const folder = temporaryFolder({ 'model.onnx': 'bert-cls-torchscript/model.onnx' });
  writeFileSync(join(folder, 'test.safetensors'), zooSamples('bert-cls-torchscript', 'lora', 5));
  return folder;
}

function evaluate(...more: readonly string[]): string[] {
  const data = ['--data', 'test.safetensors', '--loss', 'cross-entropy'];
  return ['eval', 'model.onnx', ...data, '--provider', 'cpu', '--threads', '1', ...more];
}

describe('eval', () => {
  it('shows the loss and what fits it', async () => {
    const { code, stdout, stderr } = await run(folderWithData(), evaluate());
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^model\.onnx: 40 samples in \d+s on cpu\n\nmeasure +value\n/);
    const table = stdout.split('\n').slice(2, -1);
    expect(table.map((line) => line.split(/ +/)[0])).toEqual(['measure', 'loss', 'accuracy', 'f1']);
    expect(new Set(table.map(({ length }) => length)).size).toBe(1);
  });

  it('prints one JSON document with --json, and says what auto is', async () => {
    const args = evaluate('--json', '--provider', 'auto', '--batch-size', '16');
    const { code, stdout, stderr } = await run(folderWithData(), args);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^provider auto: \w+ \(.*\)\n$/);
    const result = JSON.parse(stdout);
    expect(Object.keys(result)).toEqual([
      ...['model', 'samples', 'loss', 'accuracy', 'f1', 'guard', 'provider', 'seconds'],
    ]);
    expect(result).toMatchObject({ model: 'model.onnx', samples: 40 });
  });

  it('gives a model with fresh adapters what its base has', async () => {
    const folder = folderWithData();
    writeFileSync(join(folder, 'lora.onnx'), await insertInto(join(folder, 'model.onnx')));
    const { seconds, guard, ...base } = JSON.parse((await run(folder, evaluate('--json'))).stdout);
    expect(guard.passed).toBe(true);
    const patched = await run(folder, evaluate('--json').with(1, 'lora.onnx'));
    expect(JSON.parse(patched.stdout)).toEqual({
      ...base,
      model: 'lora.onnx',
      guard: { ...guard, seconds: expect.any(Number) },
      seconds: expect.any(Number),
    });
  });
});

describe('eval --expect', () => {
  const reachable = ['--expect', 'loss<3', '--expect', 'accuracy >= 0.1'];

  it('shows what is met', async () => {
    const { code, stdout, stderr } = await run(folderWithData(), evaluate(...reachable));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/\nmeasure +value +expected\nloss +\S+ +< 3 met\n/);
    expect(stdout).toMatch(/\naccuracy +\S+ +>= 0\.1 met\nf1 +\S+\n$/);
  });

  it('exits with 2 where something is missed, result first', async () => {
    const args = evaluate(...reachable, '--expect', 'f1>1', '--expect', 'loss==0', '--json');
    const { code, stdout, stderr } = await run(folderWithData(), args);
    expect(code).toBe(2);
    const { expectations } = JSON.parse(stdout);
    expect(expectations.map(({ passed }: { passed: boolean }) => passed)).toEqual([
      ...[true, true, false, false],
    ]);
    expect(stderr).toMatch(
      /^error: model\.onnx: f1 is 0\.\d+, expected > 1; loss is 1\.\d+, expected == 0\n$/,
    );
  });

  it.each<[string, string[], RegExp]>([
    [
      'a measure that there is not',
      ['--expect', 'perplexity<9', '--data', 'none.npz'],
      /^error: perplexity is not a measure of this loss, which has: loss, accuracy, f1\n$/,
    ],
    [
      'no comparison',
      ['--expect', 'accuracy=0.9'],
      /^error: "accuracy=0.9" is not an expectation.*\n {2}/,
    ],
    ['an unknown loss', ['--loss', 'mean'], /^error: --loss is "mean", expected cross-entropy, /],
    [
      'data that are not there',
      ['--data', 'none.npz'],
      /^error: none\.npz does not exist: there are no samples to read\n/,
    ],
    ['too few weights', ['--class-weights', '1'], /^error: 1 class weights for the 3 classes of/],
  ])('%s is the fault of the input', async (_, more, message) => {
    const { code, stdout, stderr } = await run(folderWithData(), evaluate(...more));
    expect(stderr).toMatch(message);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  });
});

it('weighs classes that are given one by one', async () => {
  const folder = folderWithData();
  const lossWith = async (...more: string[]) =>
    JSON.parse((await run(folder, evaluate('--json', ...more))).stdout).loss;
  const weights = ['1', '1', '9'].flatMap((weight) => ['--class-weights', weight]);
  const [plain, same] = [
    await lossWith(),
    await lossWith(...weights.map((w) => w.replace('9', '1'))),
  ];
  expect(same).toBeCloseTo(plain, 6);
  expect(Math.abs((await lossWith(...weights)) - plain)).toBeGreaterThan(1e-3);
});
