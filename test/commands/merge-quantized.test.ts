/** Folds into weights that are stored as integers: refused, as floats, or as integers again. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { extract } from '../../src/commands/extract.js';
import { merge } from '../../src/commands/merge.js';
import { verifyMergedHere } from '../../src/commands/references.js';
import type { Model } from '../../src/onnx/model.js';
import { openModel } from '../../src/onnx/parse.js';
import { patchFile, randomNumbers, trained } from '../support/adapters.js';
import { failure, temporaryFolder } from '../support/files.js';
import { IN, integerForms, integerModel, OUT } from '../support/integers.js';
import { model, type NodeProto, node, type TensorProto, tensor, value } from '../support/models.js';

const folder = temporaryFolder();

/** A model of one layer, with an adapter that changes its weight by about a third. */
async function patched(bytes: Uint8Array): Promise<string> {
  const output = folder.fresh();
  await patchFile(folder.write(bytes), output, {
    ...{ rank: 4, blocks: 1 },
    factors: (planned) => trained(planned, 3, 0.4),
  });
  return output;
}

function layer(nodes: NodeProto[], initializers: TensorProto[], opset = 21): Uint8Array {
  return model({
    ...{ opset, nodes, initializers },
    inputs: [value('x', ['rows', IN])],
    outputs: [value('y', ['rows', OUT])],
  });
}

const codes = (seed: number, count: number, low: number, high: number) =>
  randomNumbers(seed, count).map((v) => Math.round(low + ((v + 1) / 2) * (high - low)));
const scales = (name: string, dims: number[], seed = 5) =>
  tensor(
    name,
    dims,
    randomNumbers(
      seed,
      dims.reduce((a, b) => a * b, 1),
    ).map((v) => (v + 2) / 20),
  );

const PADDING: Readonly<Record<number, number>> = { 4: 0x88, 8: 128 };

function blocks(bits: number, zeros: boolean): Uint8Array {
  const [size, count] = [16, 1];
  const blob = (size * bits) / 8;
  const attributes = { K: IN, N: OUT, bits, block_size: size };
  const inputs = ['x', 'w', 's', ...(zeros ? ['z'] : [])];
  // Behind the last row the integers of 0, as quantizers write them.
  const used = (IN * bits) / 8;
  const padded = codes(1, OUT * blob, 0, 255).map((code, i) =>
    i % blob < used ? code : PADDING[bits]!,
  );
  return layer(
    [node('com.microsoft:MatMulNBits', inputs, 'y', attributes, 'layer')],
    [
      tensor('w', [OUT, count, blob], padded, 'uint8'),
      scales('s', [OUT * count]),
      ...(zeros ? [tensor('z', [OUT * count], codes(2, OUT * count, 5, 10), 'uint8')] : []),
    ],
  );
}

function dequantized(turned: boolean, axis: number, dtype: 'int8' | 'uint8' = 'int8'): Uint8Array {
  const dims = turned ? [OUT, IN] : [IN, OUT];
  const params = axis < 0 ? [] : [dims[axis]!];
  const zeros = tensor('z', params, codes(4, params[0] ?? 1, 1, 9), dtype);
  const attributes = axis < 0 ? {} : { axis };
  const step = node('DequantizeLinear', ['w', 's', 'z'], 'd', attributes);
  const product = turned
    ? node('Gemm', ['x', 'd'], 'y', { transB: 1 }, 'layer')
    : node('MatMul', ['x', 'd'], 'y', {}, 'layer');
  const integers = codes(3, IN * OUT, dtype === 'int8' ? -127 : 0, dtype === 'int8' ? 127 : 255);
  return layer([step, product], [tensor('w', dims, integers, dtype), scales('s', params), zeros]);
}

const forms: Record<string, Uint8Array> = {
  'MatMulNBits, 4 bits': blocks(4, false),
  'MatMulNBits, 4 bits, zero points': blocks(4, true),
  'MatMulNBits, 8 bits': blocks(8, false),
  'DequantizeLinear, one scale': dequantized(false, -1),
  'DequantizeLinear, a scale for each column': dequantized(false, 1, 'uint8'),
  'DequantizeLinear, a scale for each row of the turned weight': dequantized(true, 0),
  ...Object.fromEntries(
    integerForms
      .filter((form) => !form.endsWith('transposed'))
      .map((form, i) => {
        const perColumn = !form.startsWith('Q');
        return [form, integerModel({ form, dtype: 'int8', perColumn, seed: 40 + i }).bytes];
      }),
  ),
};

/** Their bias is stored in units of the scale of the weight. */
const hasOwnBias = (name: string) => name.startsWith('QGemm');

test.each(Object.entries(forms).filter(([name]) => hasOwnBias(name)))(
  '%s with a bias is not written anew',
  async (_, bytes) => {
    const path = await patched(bytes);
    const output = folder.fresh();
    const how = { output, quantized: 'requantize' } as const;
    const error = await failure(() => merge(path, how), 'unsupported');
    expect(error.message).toContain('a bias that is stored in units of the scale');
    expect(existsSync(output)).toBe(false);
  },
);

test.each(Object.entries(forms).filter(([name]) => !hasOwnBias(name)))(
  '%s keeps its bits, and loses of ΔW what they cannot say',
  async (name, bytes) => {
    const path = await patched(bytes);
    const output = folder.fresh();
    const result = await merge(path, { output, quantized: 'requantize' });
    const [{ kind, lost = 1, deltaNorm }] = result.merged as [(typeof result.merged)[number]];
    expect(kind).toBe('requantized');
    expect(deltaNorm).toBeGreaterThan(0);
    // ΔW is a quarter of these weights: 4 bits are a seventh of the greatest of them apart.
    expect(lost).toBeLessThan(name.includes('4 bits') ? 1 : 0.12);
    // The ranges of static quantizers were found for W alone: what ΔW adds may lie outside of them.
    if (!name.startsWith('Q')) expect(result.verification?.passed).toBe(true);
    expect(statSync(output).size).toBe(bytes.length);
    expect(operators(output)).toEqual(operators(folder.write(bytes)));
  },
);

describe.each(Object.entries(forms))('%s', (_, bytes) => {
  test('becomes floats, or is refused, with the three ways', async () => {
    const path = await patched(bytes);
    const output = folder.fresh();
    const error = await failure(() => merge(path, { output }), 'unsupported');
    expect(error.node).toBe('layer');
    expect(error.hint).toMatch(/dequantize.*requantize.*beside the weights/);
    expect(existsSync(output)).toBe(false);
    const { merged } = await merge(path, { output, quantized: 'dequantize' });
    expect(merged).toMatchObject([{ kind: 'dequantized' }]);
  });
});

describe('the proof', () => {
  const check = (path: string, output: string) =>
    verifyMergedHere(path, output, { requantized: true });

  test('reads the weights back, and multiplies with floats of them', async () => {
    const path = await patched(blocks(4, true));
    const { verification } = await merge(path, { output: folder.fresh(), quantized: 'requantize' });
    expect(verification).toMatchObject({ passed: true, proven: true, weights: { count: 1 } });
    // No scale is worse than the one that cuts off nothing, and the outputs differ by the order of sums.
    expect(verification!.weights!.worst).toBeLessThan(1);
    expect(verification!.maxRelDiff).toBeLessThan(2e-6);
  });

  test.each([
    ['4 bits', blocks(4, false)],
    ['8 bits', blocks(8, false)],
    ['one scale', dequantized(false, -1)],
  ])('fails for one integer that is another one: %s', async (_, bytes) => {
    const path = await patched(bytes);
    const output = folder.fresh();
    await merge(path, { output, quantized: 'requantize' });
    const file = readFileSync(output);
    const at = read(output, ({ graph }) => {
      const { data } = graph.initializers.get('w')!;
      return data.kind === 'raw' ? data.field.value : 0;
    });
    file[at + 3]! ^= 3;
    const damaged = await check(path, folder.write(file));
    expect(damaged.passed).toBe(false);
    expect(damaged.reason).toMatch(/^[12] numbers of w are not the nearest to W \+ ΔW/);
  });

  test('fails where ΔW is not in the file', async () => {
    const bytes = blocks(4, false);
    const { passed, reason } = await check(await patched(bytes), folder.write(bytes));
    expect(passed).toBe(false);
    expect(reason).toMatch(/numbers of w are not the nearest to W \+ ΔW/);
  });
});

test('what was not changed is the same integers and scales', async () => {
  const bytes = blocks(4, false);
  const path = folder.fresh();
  await patchFile(folder.write(bytes), path, { rank: 1, blocks: 1 });
  const output = folder.fresh();
  await merge(path, { output, quantized: 'requantize' });
  expect(tensors(output)).toEqual(tensors(folder.write(bytes)));
});

test('adapters that are extracted fold into integers as well', async () => {
  const bytes = blocks(8, false);
  const adapter = folder.fresh('adapter.safetensors');
  await extract(await patched(bytes), { output: adapter });
  const output = folder.fresh();
  const options = { adapter, output, quantized: 'requantize' } as const;
  expect(await merge(folder.write(bytes), options)).toMatchObject({
    merged: [{ kind: 'requantized' }],
  });
});

test('4 bits of bitsandbytes are not written anew', async () => {
  const bytes = layer(
    [
      node(
        'com.microsoft:MatMulBnb4',
        ['x', 'w', 'a'],
        'y',
        { K: IN, N: OUT, block_size: 16, quant_type: 1 },
        'layer',
      ),
    ],
    [
      tensor('w', [(IN * OUT) / 2], codes(1, (IN * OUT) / 2, 0, 255), 'uint8'),
      scales('a', [(IN * OUT) / 16]),
    ],
  );
  const path = await patched(bytes);
  const run = () => merge(path, { output: folder.fresh(), quantized: 'requantize' });
  expect((await failure(run, 'unsupported')).message).toContain('bitsandbytes');
});

function read<T>(path: string, look: (model: Model) => T): T {
  const opened = openModel(path);
  try {
    return look(opened);
  } finally {
    opened.close();
  }
}

function operators(path: string): string[] {
  return read(path, ({ graph }) => graph.nodes.map(({ opType }) => opType));
}

function tensors(path: string): Buffer[] {
  return read(path, ({ graph, source }) =>
    [...graph.initializers.values()].map(({ field }) =>
      Buffer.from(source.read(field.value, field.end)),
    ),
  );
}
