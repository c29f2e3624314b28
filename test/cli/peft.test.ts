/** Adapters of PEFT on the command line. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { folderWithModel, run, temporaryFolder, zooFile } from './run.js';

const lora = zooFile('bert-cls-torchscript/lora/init');
const peftLine = /trainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}\n$/;

describe('a folder of PEFT', () => {
  it('is applied, and shown as our own adapters are', async () => {
    const folder = folderWithModel();
    const { code, stdout, stderr } = await run(folder, ['apply', 'model.onnx', lora]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/layer\.0\.attention\.self\.query +64 x 64 +global +1 x 1 +8 +1,024/);
    expect(stdout).toMatch(/\nwrote model\.lora\.onnx\n/);
    expect(stdout).toMatch(peftLine);
  });

  it('may bring tensors that take the place of the model’s own, which is said', async () => {
    const folder = folderWithModel();
    const adapter = zooFile('adapters-extra/modules-to-save');
    const { stdout } = await run(folder, ['apply', 'model.onnx', adapter]);
    expect(stdout).toMatch(/\nwrote model\.lora\.onnx, 2 tensors replaced\n/);
  });

  it('is merged and proven', async () => {
    const folder = folderWithModel();
    const args = ['merge', 'model.onnx', '--adapter', lora, '--json'];
    const { code, stdout } = await run(folder, args);
    expect(code).toBe(0);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ unmatched: [], verification: { passed: true } });
    expect(result.merged).toHaveLength(12);
  });

  it('is patched in', async () => {
    const folder = folderWithModel();
    const args = ['patch', 'model.onnx', '--adapter', lora, '--json'];
    const { stdout } = await run(folder, args);
    expect(JSON.parse(stdout)).toMatchObject({ skipped: [], unmatched: [] });
  });

  it('of another model is refused in one line, with what comes near and a way on', async () => {
    const folder = folderWithModel();
    const other = zooFile('vit-cls/lora/init');
    const { code, stdout, stderr } = await run(folder, ['apply', 'model.onnx', other]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    const [line, hint] = stderr.split('\n');
    expect(line).toMatch(/^error: .*vit-cls.* does not fit model\.onnx: 12 of 12 adapters/);
    expect(line).toMatch(/vit\.layers\.\{0-1\}\.attention\.q_proj \(no such layer; near: /);
    expect(hint).toContain('--allow-unmatched');
    expect(existsSync(join(folder, 'model.lora.onnx'))).toBe(false);
  });

  it('is applied in part where that is allowed, and says what is left out', async () => {
    // Another wrapper around the same encoder: an adapter of a classifier has more.
    const folder = temporaryFolder({ 'model.onnx': 'minilm-embed/model.onnx' });
    const adapter = zooFile('adapters-extra/all-linear');
    const args = ['apply', 'model.onnx', adapter, '--peft-prefix', 'bert=auto_model'];
    expect((await run(folder, args)).code).toBe(1);
    const { code, stdout, stderr } = await run(folder, [...args, '--allow-unmatched']);
    expect(code).toBe(0);
    expect(stderr).toBe(
      'left out, since the model has no place for them:\n  bert.pooler.dense\n  classifier.bias\n  classifier.weight\n',
    );
    expect(stdout).toContain('wrote model.lora.onnx');
  });
});
