/** `.onnx_adapter`: ONNX Runtime's file of adapters, read and written. */
import { readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openOnnxAdapter } from '../../../src/adapters/files/onnx-adapter.js';
import { apply } from '../../../src/commands/apply.js';
import { extract } from '../../../src/commands/extract.js';
import { patch } from '../../../src/commands/patch.js';
import { OnnxLoraError } from '../../../src/errors.js';
import {
  onnxAdapterFilePieces,
  openOnnxAdapterFile,
} from '../../../src/formats/onnx-adapter-file.js';
import { type DataTypeName, fromFloat64 } from '../../../src/onnx/dtype.js';
import { collect } from '../../../src/onnx/edit.js';
import { insertInto, randomNumbers, trained } from '../../support/adapters.js';
import { failure, temporaryFolder } from '../../support/files.js';
import { model, node, tensor, value } from '../../support/models.js';
import { expectClose, feed, run } from '../../support/run.js';

const folder = temporaryFolder();

/** Written by ONNX Runtime itself: see make.py beside it. */
const fromRuntime = join(import.meta.dirname, '../../fixtures/onnx-adapter/ort.onnx_adapter');

const LAYER = 'model.layers.0.attn.q_proj';

function parameter(
  name: string,
  dims: number[],
  values: readonly number[],
  dtype: 'float32' | 'float16' = 'float32',
) {
  return { name, dims, dtype, data: fromFloat64(dtype, Float64Array.from(values)) };
}

async function written(parameters: Parameters<typeof onnxAdapterFilePieces>[0]): Promise<string> {
  return folder.write(await collect(onnxAdapterFilePieces(parameters)), 'a.onnx_adapter');
}

describe('a file that ONNX Runtime wrote', () => {
  it('is read as it was written', () => {
    const file = openOnnxAdapterFile(fromRuntime);
    expect([file.adapterVersion, file.modelVersion]).toEqual([3, 7]);
    const a = `${LAYER}.lora_A.MatMul.weight`;
    expect(file.parameters.get(a)).toMatchObject({ dtype: 'float32', dims: [6, 2] });
    expect([...file.readFloat64(a)]).toEqual(Array.from({ length: 12 }, (_, i) => i / 8));
    const b = 'base_model.model.lm_head.lora_B.weight';
    expect(file.parameters.get(b)).toMatchObject({ dtype: 'float16', dims: [1, 3] });
    expect([...file.readFloat64(b)]).toEqual([3, 3, 3]);
    file.close();
  });

  it('is an adapter of plain LoRA with the scale in B, by the paths of modules', () => {
    const { set, adapters, close } = openOnnxAdapter(fromRuntime);
    expect(set).toBe('ort');
    const found = adapters.map(({ record: { name, in: rows, out, rank, scale } }) => [
      name,
      [rows, rank, out, scale],
    ]);
    expect(Object.fromEntries(found)).toEqual({ [LAYER]: [6, 2, 4, 1], lm_head: [4, 1, 3, 1] });
    const layer = adapters.find(({ record }) => record.name === LAYER)!;
    expect([...layer.values('b')]).toEqual([-4, -3, -2, -1, 0, 1, 2, 3]);
    close();
  });

  it('is named byte for byte as wrong, wherever it is cut or changed, or read', () => {
    const bytes = readFileSync(fromRuntime);
    const open = (changed: Uint8Array) => {
      const path = folder.write(changed, 'bad.onnx_adapter');
      try {
        const { adapters, close } = openOnnxAdapter(path);
        try {
          for (const { values } of adapters) expect(values('a').length).toBeLessThan(100);
        } finally {
          close();
        }
      } catch (error) {
        expect(error).toBeInstanceOf(OnnxLoraError);
        expect((error as OnnxLoraError).message).toContain(path);
      }
    };
    for (let end = 0; end < bytes.length; end += 3) open(bytes.subarray(0, end));
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
        const changed = Uint8Array.from(bytes);
        changed[at] = value;
        open(changed);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a file that we write', () => {
  const parameters = [
    parameter('ä.lora_A.MatMul.weight', [3, 2], [1, 2, 3, 4, 5, 6]),
    parameter('ä.lora_B.MatMul.weight', [2, 1], [0.5, -0.5], 'float16'),
    parameter('empty.lora_A.MatMul.weight', [3, 0], []),
  ];

  it('is read back', async () => {
    const file = openOnnxAdapterFile(await written(parameters));
    expect([...file.parameters.keys()]).toEqual(parameters.map(({ name }) => name));
    expect([...file.readFloat64('ä.lora_A.MatMul.weight')]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...file.readFloat64('ä.lora_B.MatMul.weight')]).toEqual([0.5, -0.5]);
    expect(file.parameters.get('empty.lora_A.MatMul.weight')!.dims).toEqual([3, 0]);
    file.close();
  });

  // What ONNX Runtime 1.32 reads in it is printed by make.py, which the tests cannot run.
  it('is laid out as FlatBuffers and the schema ask: identifier, alignment of 8 for data and dims', async () => {
    const path = await written(parameters);
    const bytes = readFileSync(path);
    expect(bytes.toString('latin1', 4, 8)).toBe('TORT');
    const file = openOnnxAdapterFile(path);
    for (const { start } of file.parameters.values()) expect(start % 8).toBe(0);
    file.close();
    const table = bytes.readUInt32LE(0);
    const vtable = table - bytes.readInt32LE(table);
    const version = table + bytes.readUInt16LE(vtable + 4);
    expect(bytes.readInt32LE(version)).toBe(1);
  });

  it('ends at 2 GB', () => {
    const data = { length: 2 ** 31, chunks: () => [] };
    const huge = { name: 'x.lora_A.MatMul.weight', dims: [2 ** 29, 1], dtype: 'float32', data };
    expect(() => onnxAdapterFilePieces([huge as never])).toThrow(/ends at 2147483647/);
  });
});

describe('an .onnx_adapter is refused', () => {
  const A = parameter('l.lora_A.MatMul.weight', [4, 2], Array(8).fill(1));
  const B = parameter('l.lora_B.MatMul.weight', [2, 3], Array(6).fill(1));
  const bytes = (name: string, dims: number[], dtype: DataTypeName) => ({
    ...{ name, dims, dtype },
    data: new Uint8Array(dims.reduce((a, b) => a * b, 1)),
  });
  it.each<[string, Parameters<typeof onnxAdapterFilePieces>[0], RegExp]>([
    ['without B', [A], /expected a matrix lora_B for l, found none/],
    ['of ranks that differ', [A, { ...B, dims: [3, 2] }], /A \[4, 2\] and B \[3, 2\]/],
    ['of vectors', [A, { ...B, dims: [6] }], /lora_B for l, found \[6\]/],
    ['of nothing', [], /has no parameters/],
    ['of other parameters', [{ ...A, name: 'l.weight' }], /"l.weight" is not one of LoRA/],
    [
      'with one factor twice',
      [A, { ...A, name: 'l.lora_A.weight' }],
      /the same factor of one layer/,
    ],
    ['that is quantized', [bytes('l.lora_A.MatMul.weight_Q4', [4, 2], 'uint8')], /is uint8/],
    ['with a name twice', [A, A], /"l.lora_A.MatMul.weight" twice/],
  ])('%s', async (_, parameters, message) => {
    const path = await written(parameters);
    const error = await failure(() => openOnnxAdapter(path), 'invalid-adapter');
    expect(error.message).toMatch(message);
    expect(error.message).toContain(path);
  });

  it('with numbers that are not finite', async () => {
    const path = await written([A, parameter(B.name, [2, 3], [1, 2, Number.NaN, 4, 5, 6])]);
    const { adapters, close } = openOnnxAdapter(path);
    const error = await failure(() => adapters[0]!.values('b'), 'invalid-adapter');
    expect(error.message).toMatch(/"l.lora_B.MatMul.weight" holds NaN at index 2/);
    close();
  });

  it('that is another file, or none', async () => {
    const other = folder.write(Buffer.from('not a flatbuffer at all'), 'x.onnx_adapter');
    const error = await failure(() => openOnnxAdapter(other), 'invalid-adapter');
    expect(error.message).toMatch(/has the identifier "a fl", expected "TORT"/);
    await failure(() => openOnnxAdapter(folder.fresh('none.onnx_adapter')), 'file-not-found');
  });

  it('whose data are cut off', async () => {
    const path = await written([A, B]);
    truncateSync(path, 200);
    await failure(() => openOnnxAdapter(path), 'invalid-adapter');
  });
});

describe('extract -o x.onnx_adapter', () => {
  const layers = model({
    nodes: [
      node('MatMul', ['x', 'v'], 'h', {}, '/net/one/MatMul'),
      node('MatMul', ['h', 'w'], 'y', {}, '/net/two/MatMul'),
    ],
    initializers: [tensor('v', [8, 12]), tensor('w', [12, 8], randomNumbers(5, 96))],
    inputs: ['x'],
    outputs: ['y'],
  });
  const x = { x: feed([3, 8], randomNumbers(3, 24)) };

  it.each([
    { structure: 'localized', rank: 4, blocks: 2 },
    { structure: 'localized', rank: 4, blocks: 4, hybrid: 2 },
    { structure: 'diagonal', rank: 3, blocks: 4 },
    { structure: 'global', rank: 5 },
  ] as const)('keeps what adapters do: $structure, hybrid $hybrid', async (options) => {
    const patched = folder.write(await insertInto(layers, { factors: trained, ...options }));
    const [adapter, output] = [folder.fresh('a.onnx_adapter'), folder.fresh()];
    const { format } = await extract(patched, { output: adapter });
    expect(format).toBe('onnx_adapter');
    const { adapters } = await apply(folder.write(layers), adapter, { output });
    expect(adapters.map(({ name, structure }) => [name, structure])).toEqual([
      ['net.one', 'global'],
      ['net.two', 'global'],
    ]);
    expectClose(await run(output, x), await run(patched, x), 1e-6);
  });

  it('names them, and types their numbers, as the slots of the base', async () => {
    const names = ['/net/MatMul', '/net/MatMul_1'];
    const ambiguous = model({
      nodes: names.map((name, i) => node('MatMul', ['x', `w${i}`], `y${i}`, {}, name)),
      initializers: names.map((_, i) => tensor(`w${i}`, [8, 8], undefined, 'float16')),
      inputs: [value('x', ['n', 8], 'float16')],
      outputs: names.map((_, i) => value(`y${i}`, ['n', 8], 'float16')),
    });
    const options = { factors: trained, targets: ['/net/MatMul_1'] };
    const patched = folder.write(await insertInto(ambiguous, options));
    const output = folder.fresh('a.onnx_adapter');
    await extract(patched, { output });
    const base = folder.write(ambiguous);
    const { slots } = await patch(base, { output: folder.fresh(), slots: 'required' });
    const { a, b, dtype } = slots![1]!;
    const file = openOnnxAdapterFile(output);
    expect([...file.parameters.keys()]).toEqual([a, b]);
    expect([file.parameters.get(a)!.dtype, dtype]).toEqual(['float16', 'float16']);
    file.close();
    const again = folder.fresh();
    const { adapters } = await apply(base, output, { output: again });
    expect(adapters.map(({ nodes }) => nodes)).toEqual([['/net/MatMul_1']]);
  });

  it('refuses what the format has no place for', async () => {
    const extras = { head: { plan: { classes: 3, pooling: 'none' as const }, seed: 1 } };
    const hidden = model({
      nodes: [node('MatMul', ['x', 'v'], 'y', {}, '/net/MatMul')],
      initializers: [tensor('v', [8, 8])],
      inputs: [value('x', ['n', 8])],
      outputs: [value('y', ['n', 8])],
    });
    const patched = folder.write(await insertInto(hidden, { factors: trained, extras }));
    const output = folder.fresh('a.onnx_adapter');
    const error = await failure(() => extract(patched, { output }), 'unsupported');
    expect(error.message).toMatch(/has a head, and an .onnx_adapter holds factors A and B only/);
  });
});
