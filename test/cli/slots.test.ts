/** patch --slots, and the commands around a slotted model. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { folderWithModel, run } from './run.js';

const file = (folder: string, name: string) => readFileSync(join(folder, name));

describe('patch --slots', () => {
  it('writes model.slots.onnx, says what feeds it, and unpatch takes the slots out', async () => {
    const folder = folderWithModel();
    // The word behind it is the model, not its value.
    const patched = await run(folder, ['patch', '--slots', 'model.onnx', '--verify']);
    expect(patched.stderr).toBe('');
    expect(patched.code).toBe(0);
    expect(patched.stdout).toMatch(/^module +in x out +dtype\n/);
    expect(patched.stdout).toMatch(/max \|Δ\| 0, .* passed\nwrote model\.slots\.onnx\n/);
    expect(patched.stdout).toMatch(
      /\n14 slots: inputs MODULE\.lora_A\.MatMul\.weight \[in, rank\] and MODULE\.lora_B\.MatMul\.weight \[rank, out\]\n$/,
    );
    const { stdout } = await run(folder, ['unpatch', 'model.slots.onnx']);
    expect(stdout).toBe('removed 14 slots\nwrote model.base.onnx\n');
    expect(file(folder, 'model.base.onnx').equals(file(folder, 'model.onnx'))).toBe(true);
  });

  it('gives the slots as data, of either kind', async () => {
    const folder = folderWithModel();
    const args = ['patch', 'model.onnx', '--slots', 'optional', '--targets', 'query', '--json'];
    const { slots, adapters } = JSON.parse((await run(folder, args)).stdout);
    expect(adapters).toEqual([]);
    expect(slots).toHaveLength(2);
    expect(slots[0]).toMatchObject({
      name: 'bert.encoder.layer.0.attention.self.query',
      shape: [64, 64],
      dtype: 'float32',
      a: 'bert.encoder.layer.0.attention.self.query.lora_A.MatMul.weight',
    });
    const inspected = await run(folder, ['inspect', 'model.slots.onnx']);
    expect(inspected.stdout).toMatch(/\nslots {5}2, two optional inputs each, by onnx-lora /);
    expect(inspected.stdout).not.toContain('lora_A');
    expect(inspected.stdout).toMatch(/self\.query .* yes /);
    expect(inspected.stdout).toMatch(/14 of 18 layers can take an adapter, 2 have a slot$/m);
  });

  it.each([
    ['--rank', '8'],
    ['--adapter', 'model.onnx'],
    ['--head', 'linear:3'],
    ['--init', 'zero'],
  ])('says that %s has no effect on it', async (...option) => {
    const folder = folderWithModel();
    const { code, stderr } = await run(folder, ['patch', 'model.onnx', '--slots', ...option]);
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^error: ${option[0]} has no effect with --slots\n`));
    expect(stderr).toMatch(/leave out --slots/);
  });

  it('refuses another kind, and names the right one', async () => {
    const { code, stderr } = await run(folderWithModel(), [
      'patch',
      'model.onnx',
      '--slots=optinal',
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/--slots is "optinal", expected required or optional\n.*optional/);
  });
});

it('extract writes an .onnx_adapter, and apply puts it into the base', async () => {
  const folder = folderWithModel();
  await run(folder, ['patch', 'model.onnx', '--targets', 'query', '--structure', 'global']);
  const written = await run(folder, ['extract', 'model.lora.onnx', '-o', 'a.onnx_adapter']);
  expect(written.stdout).toBe('wrote a.onnx_adapter: 2 adapters (onnx_adapter)\n');
  const applied = await run(folder, ['apply', 'model.onnx', 'a.onnx_adapter', '-o', 'b.onnx']);
  expect(applied.code).toBe(0);
  expect(applied.stdout).toMatch(/query +64 x 64 +global +1 x 1 +16 /);
});
