import { describe, expect, it } from 'vitest';
import type { Model } from '../../src/onnx/model.js';
import { openModel } from '../../src/onnx/parse.js';
import { findWorkingInputs, InputSampler } from '../../src/runtime/samples.js';
import { openSession, type ValueMeta } from '../../src/runtime/session.js';
import { tensorToFloat64 } from '../../src/runtime/tensor-value.js';
import {
  allModels,
  bytesOf,
  failure,
  floats,
  graph,
  ints,
  modelOf,
  node,
  zooModel,
} from './models.js';

/** One batch of random inputs. */
const sampleInputs = (model: Model, inputs: readonly ValueMeta[], seed: number) =>
  new InputSampler(model, inputs).feeds(seed, 0);

describe('findWorkingInputs', () => {
  it.each(allModels)('finds some for $name', async ({ path }) => {
    const model = openModel(path);
    const session = await openSession(path);
    const batches = await findWorkingInputs(session, model, 0);
    expect(batches.length).toBe(3);
    for (const feeds of batches) {
      expect([...feeds.keys()]).toEqual(session.inputs.map(({ name }) => name));
      const outputs = await session.run(feeds);
      for (const output of outputs.values()) {
        expect(tensorToFloat64(output).every(Number.isFinite)).toBe(true);
      }
    }
    expect(batches[0]).not.toEqual(batches[1]);
    await session.release();
    model.close();
  });

  it('tries other sizes', async () => {
    const bytes = bytesOf(
      graph(
        { x: ['int64', ['batch', 'seq']] },
        { y: ['int64', [32]] },
        [node('Reshape', ['x', 's'], ['y'])],
        [ints('s', [32])],
      ),
    );
    const session = await openSession(bytes);
    const [feeds] = await findWorkingInputs(session, modelOf(bytes), 0, 1);
    expect(feeds!.get('x')!.dims).toEqual([2, 16]);
    await session.release();
  });

  it('gives up with the reason of ONNX Runtime', async () => {
    const bytes = bytesOf(
      graph(
        { x: ['int64', ['batch', 'seq']] },
        { y: ['int64', [7]] },
        [node('Reshape', ['x', 's'], ['y'])],
        [ints('s', [7])],
      ),
    );
    const session = await openSession(bytes);
    const error = await failure(() => findWorkingInputs(session, modelOf(bytes), 0));
    expect(error).toMatchObject({
      code: 'verification',
      message: expect.stringMatching(/^could not make inputs that the model accepts: .*Reshape/),
      hint: expect.stringContaining('`samples`'),
      node: 'y',
    });
    await session.release();
  });

  it('does not take NaN for an answer', async () => {
    const nodes = [node('Sub', ['x', 'x'], ['zero']), node('Div', ['zero', 'zero'], ['y'])];
    const bytes = bytesOf(graph({ x: ['float32', [2]] }, { y: ['float32', [2]] }, nodes));
    const session = await openSession(bytes);
    const error = await failure(() => findWorkingInputs(session, modelOf(bytes), 0));
    expect(error).toMatchObject({ code: 'verification', message: expect.stringContaining('NaN') });
    await session.release();
  });

  it('stops when told to', async () => {
    const path = zooModel('mlp-regression');
    const session = await openSession(path);
    const options = { signal: AbortSignal.abort() };
    const error = await failure(() => findWorkingInputs(session, openModel(path), 0, 1, options));
    expect(error).toMatchObject({ code: 'aborted' });
    await session.release();
  });
});

describe('random inputs', () => {
  const inputs: ValueMeta[] = [
    { name: 'ids', dtype: 'int64', shape: [50] },
    { name: 'token_type_ids', dtype: 'int32', shape: [50] },
    { name: 'count', dtype: 'int64', shape: [50] },
    { name: 'attention_mask', dtype: 'float32', shape: [50] },
    { name: 'flag', dtype: 'bool', shape: [50] },
    { name: 'image', dtype: 'uint8', shape: [1, 10, 5] },
    { name: 'x', dtype: 'float16', shape: [50] },
  ];
  const declared = Object.fromEntries(
    inputs.map((i) => [i.name, [i.dtype!, [...i.shape]] as const]),
  );
  const nodes = [
    node('Add', ['ids', 'two'], ['positions']),
    node('Gather', ['table', 'positions'], ['y']),
    node('Gather', ['table', 'token_type_ids'], ['z']),
  ];
  const model = modelOf(
    bytesOf(
      graph(declared, { y: ['float32', null] }, nodes, [
        floats('table', [6, 1], [0, 0, 0, 0, 0, 0]),
        ints('two', [2]),
      ]),
    ),
  );
  const distinct = (name: string, seed: number) => [
    ...new Set(tensorToFloat64(sampleInputs(model, inputs, seed).get(name)!)),
  ];

  it('stay inside the tables that they index', () => {
    const sampler = new InputSampler(model, inputs);
    const seen = new Set<number>();
    for (let seed = 0; seed < 200; seed++) {
      for (const id of tensorToFloat64(sampler.feeds(seed, 0).get('ids')!)) seen.add(id);
    }
    expect([...seen].sort()).toEqual([0, 1, 2, 3]);
  });

  it('suit their kind', () => {
    expect(distinct('token_type_ids', 0).sort()).toEqual([0, 1]);
    expect(distinct('count', 0).sort()).toEqual([0, 1]);
    expect(distinct('attention_mask', 0)).toEqual([1]);
    expect(distinct('flag', 0)).toEqual([1]);
    expect(Math.max(...distinct('image', 0))).toBeGreaterThan(100);
    expect(distinct('x', 0).length).toBeGreaterThan(40);
  });

  it('depend on the seed, and on nothing else', () => {
    expect(sampleInputs(model, inputs, 5)).toEqual(sampleInputs(model, inputs, 5));
    expect(sampleInputs(model, inputs, 5)).not.toEqual(sampleInputs(model, inputs, 6));
  });

  it.each([
    ['string', 'string elements'],
    [undefined, 'is not a tensor'],
  ] as const)('are not made of %s', async (dtype, problem) => {
    const error = await failure(() => sampleInputs(model, [{ name: 'text', dtype, shape: [] }], 0));
    expect(error).toMatchObject({
      code: 'verification',
      message: expect.stringContaining(problem),
    });
  });
});

describe('inputs that cannot be guessed', () => {
  it('are refused by their size before anything is made', async () => {
    const declared = { x: ['float32', [100_000_000]] as const };
    const model = modelOf(bytesOf(graph(declared, { y: ['float32', null] }, [])));
    const inputs: ValueMeta[] = [{ name: 'x', dtype: 'float32', shape: [1e9] }];
    const error = await failure(() => sampleInputs(model, inputs, 0));
    expect(error).toMatchObject({
      code: 'verification',
      message: expect.stringMatching(
        /input x has shape \[1000000000\].* at most 33554432 elements/,
      ),
      hint: expect.stringContaining('`samples`'),
    });
  });

  it('give a cache of a window the tokens that it holds from the start', () => {
    const attention = node(
      'GroupQueryAttention',
      ['q', 'k', 'v', 'past.key', 'past.value', 'n', 't'],
      ['y'],
      { num_heads: 2, kv_num_heads: 2, local_window_size: 24, sliding_window_cache: 1 },
      'com.microsoft',
    );
    const cache = ['batch_size', 2, 'past_sliding_length', 16] as const;
    const declared = { 'past.key': ['float32', [...cache]] as const };
    const model = modelOf(bytesOf(graph(declared, { y: ['float32', null] }, [attention])));
    const inputs: ValueMeta[] = [{ name: 'past.key', dtype: 'float32', shape: [...cache] }];
    expect(sampleInputs(model, inputs, 0).get('past.key')!.dims).toEqual([2, 2, 24, 16]);
  });

  it.each([
    ['a product', node('MatMul', ['y', 'w'], ['z']), [4 * 24, 1]],
    ['a Gemm with its weight transposed', node('Gemm', ['y', 'w'], ['z'], { transB: 1 }), [1, 96]],
    ['a quantized product', node('MatMulNBits', ['y', 'w'], ['z'], { K: 96, N: 1 }), [1, 3, 16]],
  ])('get the head size of an open cache from %s behind its attention', (_, layer, dims) => {
    const attention = node(
      'GroupQueryAttention',
      ['q', 'k', 'v', 'past_key_values.0.key', 'past_key_values.0.value', 'n', 't'],
      ['y'],
      { num_heads: 4, kv_num_heads: 2 },
      'com.microsoft',
    );
    const cache = ['batch_size', null, 'past_sequence_length', 'kv_cache_dim'] as const;
    const declared = { 'past_key_values.0.key': ['float32', [...cache]] as const };
    const size = dims.reduce((a, b) => a * b, 1);
    const weight = floats(
      'w',
      dims,
      Array.from({ length: size }, () => 0),
    );
    const z = { z: ['float32', null] } as const;
    const model = modelOf(bytesOf(graph(declared, z, [attention, layer], [weight])));
    const inputs: ValueMeta[] = [
      { name: 'past_key_values.0.key', dtype: 'float32', shape: [...cache] },
    ];
    const feeds = sampleInputs(model, inputs, 0);
    expect(feeds.get('past_key_values.0.key')!.dims).toEqual([2, 2, 0, 24]);
  });
});
