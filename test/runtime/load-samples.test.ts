import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadSamples } from '../../src/runtime/samples.js';
import { openSession, type ValueMeta } from '../../src/runtime/session.js';
import { tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import { failure, zooModel } from './models.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'samples-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A file of zeros. */
function save(tensors: Record<string, [code: string, shape: number[], bytes: number]>): string {
  let end = 0;
  const entries = Object.entries(tensors).map(([name, [dtype, shape, bytes]]) => {
    end += bytes;
    return [name, { dtype, shape, data_offsets: [end - bytes, end] }];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const path = join(folder, 'samples.safetensors');
  writeFileSync(path, Buffer.concat([length, header, Buffer.alloc(end)]));
  return path;
}

const inputs: ValueMeta[] = [{ name: 'ids', dtype: 'int64', shape: ['batch', 3] }];

describe('loadSamples', () => {
  it.each(['bert-cls-torchscript', 'wav2vec2-ctc', 'mlp-regression', 'llama-causal'])(
    'reads the recorded batch of %s, and the model gives the recorded outputs',
    async (name) => {
      const path = join(dirname(zooModel(name)), 'io.safetensors');
      const session = await openSession(zooModel(name));
      const outputs = await session.run(loadSamples(path, session.inputs));
      await session.release();
      const { name: output } = session.outputs[0]!;
      const recorded = loadSamples(path).get(`output.${output}`)!;
      const [a, b] = [tensorToFloat64(outputs.get(output)!), tensorToFloat64(recorded)];
      expect(a.length).toBe(b.length);
      expect(Math.max(...a.map((value, i) => Math.abs(value - b[i]!)))).toBeLessThan(1e-4);
    },
  );

  it('takes names with and without prefix, and leaves the rest alone', () => {
    const labels: [string, number[], number] = ['I64', [2], 16];
    const plain = loadSamples(save({ labels, ids: ['I64', [2, 3], 48] }), inputs);
    const prefixed = loadSamples(save({ labels, 'input.ids': ['I64', [2, 3], 48] }), inputs);
    expect(plain).toEqual(prefixed);
    expect([...plain.keys()]).toEqual(['ids']);
    expect(plain.get('ids')!.dims).toEqual([2, 3]);
  });

  it.each([
    [{ 'input.id': ['I64', [2, 3], 48] }, 'has no key ids, it has input.id'],
    [{ ids: ['I32', [2, 3], 24] }, "key ids holds int32, the model's input takes int64"],
    [{ 'input.ids': ['I64', [2, 4], 64] }, 'key input.ids has shape [2, 4]'],
    [{ ids: ['I64', [6], 48] }, "has shape [6], the model's input takes [batch, 3]"],
  ] as const)('refuses %j', async (tensors, message) => {
    const path = save(tensors as never);
    const error = await failure(() => loadSamples(path, inputs));
    expect(error).toMatchObject({ code: 'invalid-argument', hint: expect.any(String) });
    expect((error as Error).message).toContain(path);
    expect((error as Error).message).toContain(message);
  });

  it('refuses what is no file', async () => {
    const error = await failure(() => loadSamples(join(folder, 'none.safetensors'), inputs));
    expect(error).toMatchObject({ code: 'file-not-found' });
  });
});
