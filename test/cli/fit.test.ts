import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { merge } from '../../src/commands/merge.js';
import { patchFile, trained } from '../support/adapters.js';
import { folderWithModel, run } from './run.js';

/** A folder with a model, and the same model with adapters folded into it. */
async function folderWithTuned(): Promise<string> {
  const folder = folderWithModel();
  const [base, patched] = ['model.onnx', 'model.lora.onnx'].map((name) => join(folder, name));
  const adapters = { rank: 4, blocks: 2, targets: ['query', 'dense'] };
  await patchFile(base!, patched!, { ...adapters, factors: (all) => trained(all, 3, 0.1) });
  await merge(patched!, { output: join(folder, 'tuned.onnx'), verify: false });
  return folder;
}

const FIT = ['fit', 'model.onnx', 'tuned.onnx', '-o', 'adapter.safetensors'];

describe('fit', () => {
  it('shows the error of each structure and the choice, and writes what apply takes', async () => {
    const folder = await folderWithTuned();
    const { code, stdout, stderr } = await run(folder, [
      ...FIT,
      '--rank',
      '4',
      '--blocks',
      '2',
      '--quiet',
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const [head, first] = stdout.split('\n');
    expect(head).toMatch(
      /^module +\|\|ΔW\|\| +localized +diagonal +global +choice +rank +params +error$/,
    );
    expect(first).toMatch(/query +[\d.]+ +[\de.-]+ +0\.\d+ +0\.\d+ +localized 2 x 2 +4 +512/);
    expect(stdout).toMatch(
      /\nwrote adapter\.safetensors: \d+ adapters \(safetensors\), [\d,]+ para/,
    );
    const applied = await run(folder, [
      'apply',
      'model.onnx',
      'adapter.safetensors',
      '-o',
      'out.onnx',
    ]);
    expect(applied.code).toBe(0);
  });

  it('gives the table as data with --json', async () => {
    const folder = await folderWithTuned();
    const { stdout } = await run(folder, [...FIT, '--budget', '2000', '--json', '--quiet']);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ output: 'adapter.safetensors', set: 'default', rest: [] });
    expect(result.parameters).toBeLessThanOrEqual(2000);
    expect(result.layers[0].errors.length).toBeGreaterThan(4);
  });

  it('fails with 1 where nothing changed, and says what to do', async () => {
    const folder = folderWithModel();
    const same = join(folder, 'same.onnx');
    await run(folder, ['patch', 'model.onnx', '--quiet']);
    await run(folder, ['unpatch', 'model.lora.onnx', '-o', same, '--quiet']);
    const args = ['fit', 'model.onnx', 'same.onnx', '-o', 'adapter.safetensors'];
    const { code, stdout, stderr } = await run(folder, args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(
      /^error: model\.onnx and same\.onnx have the same weights\n.*--allow-empty/,
    );
    expect(existsSync(join(folder, 'adapter.safetensors'))).toBe(false);
    expect((await run(folder, [...args, '--allow-empty'])).code).toBe(0);
  });
});
