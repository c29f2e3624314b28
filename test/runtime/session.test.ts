import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openSession } from '../../src/runtime/session.js';
import { nativeOptions } from '../../src/runtime/session-options.js';
import {
  tensorFromBytes,
  tensorFromNumbers,
  tensorToFloat64,
} from '../../src/runtime/tensor-value.js';
import { bytesOf, failure, graph, ints, node, scaling, zooModel } from './models.js';

const x = (values: number[], dims = [1, 4]) =>
  new Map([['x', tensorFromNumbers('float32', dims, Float64Array.from(values))]]);

describe('openSession', () => {
  it('tells names, types and shapes', async () => {
    const session = await openSession(scaling(2, 'float16', ['n', null, 4]));
    expect(session.inputs).toEqual([{ name: 'x', dtype: 'float16', shape: ['n', null, 4] }]);
    expect(session.outputs).toEqual([{ name: 'y', dtype: 'float16', shape: ['n', null, 4] }]);
    expect(session.provider).toBe('cpu');
    await session.release();
    await session.release();
  });

  it.each(['float16', 'float32', 'float64'] as const)('runs in %s', async (dtype) => {
    const session = await openSession(scaling(-0.5, dtype), { optimization: 'all', threads: 1 });
    const feeds = new Map([
      ['x', tensorFromNumbers(dtype, [2, 4], Float64Array.of(0, 1, 2, 3, 4, 5, 6, 7))],
    ]);
    const y = (await session.run(feeds)).get('y')!;
    await session.release();
    expect(y.dtype).toBe(dtype);
    expect(y.dims).toEqual([2, 4]);
    expect([...tensorToFloat64(y)]).toEqual([-0, -0.5, -1, -1.5, -2, -2.5, -3, -3.5]);
    if (dtype === 'float16') expect(y.data).toBeInstanceOf(Uint16Array);
  });

  it('finds the external data of bytes', async () => {
    const path = zooModel('bert-external-data');
    const bytes = readFileSync(path);
    const session = await openSession(bytes, { externalFolder: dirname(path) });
    expect(session.outputs[0]!.name).toBe('logits');
    await session.release();
  });

  it('refuses a OneHot without a depth, which the runtime does not survive', async () => {
    const one = node('OneHot', ['ids', 'depth', 'ids'], ['y']);
    const io = [{ ids: ['int64', [2]] }, { y: ['int64', [2, 0]] }] as const;
    const bytes = bytesOf(graph(...io, [one], [ints('depth', [])]));
    const error = await failure(() => openSession(bytes));
    expect(error).toMatchObject({ code: 'runtime', node: 'y' });
    expect((error as Error).message).toContain(
      'y (OneHot) has a depth depth of the shape [0], expected one number',
    );
  });

  it.each(['DepthToSpace', 'SpaceToDepth'])('refuses a %s of endless blocks', async (opType) => {
    const one = node(opType, ['x'], ['y'], { blocksize: 2 ** 62 });
    const io = [{ x: ['float32', [1, 4, 2, 2]] }, { y: ['float32', null] }] as const;
    const error = await failure(() => openSession(bytesOf(graph(...io, [one]))));
    expect(error).toMatchObject({ code: 'runtime', node: 'y' });
  });

  it.each([
    ['nowhere.onnx', 'file-not-found', 'nowhere.onnx does not exist'],
    [dirname(zooModel('bert-fp16')), 'not-a-file', 'expected an ONNX model'],
    [new Uint8Array(10), 'runtime', 'ONNX Runtime does not load the model on cpu: '],
    [
      bytesOf(graph({}, { y: ['float32', [1]] }, [node('Nonesuch', [], ['y'])])),
      'runtime',
      'Nonesuch',
    ],
  ] as const)('refuses %s', async (model, code, message) => {
    const error = await failure(() => openSession(model));
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) });
    expect((error as Error).message).not.toContain('\n');
  });
});

describe('options', () => {
  it('have the names of ONNX Runtime', () => {
    const options = { prepacking: false, spinning: false, withoutOptimizers: ['A', 'B'] } as const;
    expect(nativeOptions({ ...options, provider: 'webgpu', cpuFallback: false })).toMatchObject({
      executionProviders: ['webgpu'],
      extra: {
        'optimization.disable_specified_optimizers': 'A;B',
        'session.disable_cpu_ep_fallback': '1',
        'session.disable_prepacking': '1',
        'session.intra_op.allow_spinning': '0',
      },
    });
    expect(nativeOptions({}).extra).toEqual({});
  });

  it('that only providers need do no harm on the CPU', async () => {
    const session = await openSession(scaling(2), { cpuFallback: false, prepacking: false });
    expect([...tensorToFloat64((await session.run(x([1, 2, 3, 4]))).get('y')!)]).toEqual([
      2, 4, 6, 8,
    ]);
    await session.release();
  });
});

describe('run', () => {
  it('says in one line what is wrong with the inputs', async () => {
    const session = await openSession(scaling(1));
    const shape = await failure(() => session.run(x([1, 2, 3], [1, 3])));
    expect(shape).toMatchObject({ code: 'runtime', hint: expect.any(String) });
    expect((shape as Error).message).toMatch(
      /^the model does not run on cpu: .*Got: 3 Expected: 4/,
    );
    const missing = await failure(() => session.run(new Map()));
    expect((missing as Error).message).toContain("input 'x' is missing");
    await session.release();
  });

  it('ignores feeds that the model has no input for', async () => {
    const session = await openSession(scaling(3));
    const feeds = new Map([
      ...x([1, 1, 1, 1]),
      ['z', tensorFromNumbers('int64', [0], new Float64Array())],
    ]);
    expect([...tensorToFloat64((await session.run(feeds)).get('y')!)]).toEqual([3, 3, 3, 3]);
    await session.release();
  });
});

describe('tensors', () => {
  it.each([
    'int8',
    'uint8',
    'int16',
    'uint16',
    'int32',
    'uint32',
    'int64',
    'uint64',
    'float16',
    'float32',
    'float64',
    'bool',
  ] as const)('%s keeps small numbers', (dtype) => {
    const values = Float64Array.of(0, 1, 1, 0);
    const tensor = tensorFromNumbers(dtype, [2, 2], values);
    expect([...tensorToFloat64(tensor)]).toEqual([...values]);
    const { buffer, byteOffset, byteLength } = tensor.data;
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    expect(tensorFromBytes(dtype, [2, 2], bytes)).toEqual(tensor);
  });

  it('refuses what does not fit', async () => {
    expect(await failure(() => tensorFromBytes('int64', [2], new Uint8Array(8)))).toMatchObject({
      code: 'invalid-argument',
    });
    expect(
      await failure(() => tensorFromNumbers('bfloat16', [0], new Float64Array())),
    ).toMatchObject({
      code: 'unsupported',
    });
  });
});
