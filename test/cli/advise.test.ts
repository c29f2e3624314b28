import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { zooSamples } from '../support/samples.js';
import { folderWithModel, run } from './run.js';

/** A folder with the zoo's small BERT classifier and 40 samples. */
function folderWithData(): string {
  const folder = folderWithModel();
  writeFileSync(join(folder, 'data.safetensors'), zooSamples('bert-cls-torchscript', 'lora', 5));
  return folder;
}

const onData = [
  ...['--data', 'data.safetensors', '--loss', 'cross-entropy', '--provider', 'cpu'],
  ...['--threads', '1', '--rank', '8'],
];

describe('advise', () => {
  it('shows what each structure leaves of the gradient, and the patch command that follows', async () => {
    const { code, stdout } = await run(folderWithData(), ['advise', 'model.onnx', ...onData]);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^module +in x out +norm +global +diagonal +localized +choice +rank +sure\n/,
    );
    expect(stdout).toMatch(/encoder\.layer\.0\.attention\.self\.query +64 x 64 /);
    expect(stdout).toMatch(
      /Based on the gradient on the data: fitted to one half .* cosine of 0\.\d\d/,
    );
    expect(stdout).toMatch(/\nOver all layers: .*\n14 adapters, [\d,]+ parameters\n\n/);
    expect(stdout.trimEnd().split('\n').at(-1)).toMatch(
      /^onnx-lora patch model\.onnx --structure /,
    );
  });

  it('writes a config that patch takes', async () => {
    const folder = folderWithData();
    const args = ['--budget', '9000', '--write-config', 'lora.json', '--json'];
    const advised = await run(folder, ['advise', 'model.onnx', ...onData, ...args]);
    const { patch, parameters, config } = JSON.parse(advised.stdout);
    expect(config).toBe('lora.json');
    expect(JSON.parse(readFileSync(join(folder, 'lora.json'), 'utf8'))).toEqual(patch);
    const patched = await run(folder, ['patch', 'model.onnx', '--config', 'lora.json', '--json']);
    expect(JSON.parse(patched.stdout).parameters.trainable).toBe(parameters);
    expect(parameters).toBeLessThanOrEqual(9000);
    expect(parameters).toBeGreaterThan(8500);
  });

  it('prints a patch command that a shell takes as it is', async () => {
    const folder = folderWithModel();
    const { stdout } = await run(folder, ['advise', 'model.onnx', '--rank', '8']);
    const [program, ...args] = stdout.trimEnd().split('\n').at(-1)!.split(' ');
    expect(program).toBe('onnx-lora');
    expect((await run(folder, args)).code).toBe(0);
  });

  it('says that the weights alone are little to go by', async () => {
    const { stdout } = await run(folderWithModel(), ['advise', 'model.onnx', '--rank', '8']);
    expect(stdout).toContain('Based on the weights alone, which say little');
  });

  it.each([
    [['--loss', 'mse'], '--loss has no effect without --data'],
    [['--batches', '2'], '--batches has no effect without --data'],
    [['--data', 'data.safetensors'], '--data needs --loss'],
    [['--tuned', 'none.onnx'], 'none.onnx'],
  ])('%j is an error of one line', async (args, message) => {
    const { code, stderr } = await run(folderWithData(), ['advise', 'model.onnx', ...args]);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/^error: /);
  });
});

describe('patch --structure auto', () => {
  it('says what it went by', async () => {
    const args = [
      'patch',
      'model.onnx',
      '--structure',
      'auto',
      ...onData.slice(0, 6),
      '--rank',
      '8',
    ];
    const { code, stderr } = await run(folderWithData(), args);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /structure auto: (global|localized|diagonal).*; from the gradient on data/,
    );
  });
});
