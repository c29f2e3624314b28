/** Adapters on their way: extract in its formats, combine, and a fold undone. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type InsertOptions, insertInto, trained } from '../support/adapters.js';
import { folderWithModel, run } from './run.js';

/** A folder with a model, and `patched<seed>.onnx` with adapters of its query layers. */
async function folderWithAdapters(seeds = [1], options: InsertOptions = {}): Promise<string> {
  const folder = folderWithModel();
  for (const seed of seeds) {
    const factors: InsertOptions['factors'] = (adapters) => trained(adapters, seed, 0.1);
    const all = { factors, targets: ['query'], rank: 8, ...options };
    const bytes = await insertInto(join(folder, 'model.onnx'), all);
    writeFileSync(join(folder, `patched${seed}.onnx`), bytes);
  }
  return folder;
}

const words = (line: string) => line.split(' ');

describe('extract', () => {
  it('writes a PEFT folder where the output has no ending, and says what it is', async () => {
    const folder = await folderWithAdapters();
    const { code, stdout } = await run(folder, words('extract patched1.onnx -o adapter/'));
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: 'PEFT type GRALORA\nwrote adapter/: 2 adapters (peft)\n',
    });
    const files = readdirSync(join(folder, 'adapter')).sort();
    expect(files).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
  });

  it('shows the form and error of each adapter where not all are as they were', async () => {
    const folder = await folderWithAdapters();
    const line = 'extract patched1.onnx -o adapter --peft-rank 4 --peft-prefix bert=';
    const { stdout } = await run(folder, words(line));
    expect(stdout).toMatch(/^module +form +rank +error\n/);
    expect(stdout).toMatch(/\nencoder\.layer\.0\.attention\.self\.query +truncated +4 +0\.\d+\n/);
    expect(stdout).toMatch(/\nPEFT type LORA\nwrote adapter: 2 adapters \(peft\)\n$/);
  });

  it('says why it is not GRALORA', async () => {
    const folder = await folderWithAdapters([1], { structure: 'diagonal' });
    const { stdout } = await run(folder, words('extract patched1.onnx -o adapter'));
    expect(stdout).toContain('LORA: bert.encoder.layer.0.attention.self.query is diagonal\n');
  });

  it('writes an .onnx_adapter', async () => {
    const folder = await folderWithAdapters();
    const { stdout } = await run(folder, words('extract patched1.onnx -o a.onnx_adapter'));
    expect(stdout).toBe('wrote a.onnx_adapter: 2 adapters (onnx_adapter)\n');
    expect(readFileSync(join(folder, 'a.onnx_adapter')).toString('latin1', 4, 8)).toBe('TORT');
  });
});

describe('combine', () => {
  async function folderWithFiles(): Promise<string> {
    const folder = await folderWithAdapters([1, 2]);
    await run(folder, words('extract patched1.onnx -o a.safetensors'));
    await run(folder, words('extract patched2.onnx -o b/'));
    return folder;
  }

  it('takes several weights behind one option, anywhere', async () => {
    const folder = await folderWithFiles();
    const json = async (line: string) => JSON.parse((await run(folder, words(line))).stdout);
    const before = await json(
      'combine --weights 0.5 -0.25 a.safetensors b -o c.safetensors --json',
    );
    const after = await json('combine a.safetensors b --weights 0.5 -0.25 -o d.safetensors --json');
    expect(before.weights).toEqual([0.5, -0.25]);
    expect({ ...after, output: '' }).toEqual({ ...before, output: '' });
    const [c, d] = ['c', 'd'].map((name) => readFileSync(join(folder, `${name}.safetensors`)));
    expect(c!.equals(d!)).toBe(true);
  });

  it('shows what each layer became', async () => {
    const folder = await folderWithFiles();
    const { code, stdout } = await run(folder, words('combine a.safetensors b -o c.safetensors'));
    expect(code).toBe(0);
    expect(stdout).toMatch(/^module +of +structure +grid +rank +error\n/);
    expect(stdout).toMatch(/layer\.1\.attention\.self\.query +1\+2 +localized +4 x 4 +16 +0\n/);
    expect(stdout).toMatch(/\nwrote c\.safetensors: 2 adapters \(safetensors\)\n$/);
    const applied = await run(folder, words('merge model.onnx --adapter c.safetensors -o m.onnx'));
    expect(applied.code).toBe(0);
  });

  it('needs an adapter, and a density for ties', async () => {
    const folder = await folderWithFiles();
    const none = await run(folder, words('combine -o c.safetensors'));
    expect(none.code).toBe(1);
    expect(none.stderr).toContain('combine needs ADAPTER');
    const ties = await run(folder, words('combine a.safetensors b -o c.safetensors --method ties'));
    expect(ties.stderr).toContain('density is missing');
    expect(existsSync(join(folder, 'c.safetensors'))).toBe(false);
  });

  it('names its operands in the help', async () => {
    const { stdout } = await run(folderWithModel(), ['combine', '--help']);
    expect(stdout).toContain('Usage: onnx-lora combine ADAPTER … -o PATH [options]');
    expect(stdout).toContain('--weights W …');
  });
});

describe('merge --scale -1', () => {
  it('says how near the weights come to those before', async () => {
    const folder = await folderWithAdapters();
    await run(folder, words('extract patched1.onnx -o a.safetensors'));
    await run(folder, words('merge model.onnx --adapter a.safetensors -o m.onnx --no-verify'));
    const line = 'merge m.onnx --adapter a.safetensors --scale -1 -o back.onnx';
    const { code, stdout } = await run(folder, words(line));
    expect(code).toBe(0);
    expect(stdout).toMatch(/every weight is back to within rounding: 1\.\de-7 of its norm\n/);
  });
});
