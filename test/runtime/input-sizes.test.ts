import { describe, expect, it } from 'vitest';
import type { DataTypeName } from '../../src/onnx/dtype.js';
import type { Dim } from '../../src/onnx/model.js';
import { InputShapes } from '../../src/runtime/input-sizes.js';

function first(inputs: Record<string, Dim[]>, dtype: DataTypeName = 'int64'): number[][] {
  const metas = Object.entries(inputs).map(([name, shape]) => ({ name, dtype, shape }));
  const shapes = new InputShapes(metas);
  return metas.map(({ name }) => shapes.dims(name, shapes.variants[0]!));
}

describe('the first guess', () => {
  it('fits transformers', () => {
    expect(first({ ids: ['batch', 'sequence'], mask: ['batch', 'sequence'] })).toEqual([
      [2, 8],
      [2, 8],
    ]);
    expect(first({ ids: [null, null] })).toEqual([[2, 8]]);
    expect(first({ ids: [1, 5] })).toEqual([[1, 5]]);
  });

  it('fits decoders with a cache', () => {
    const shapes = first({
      input_ids: ['batch_size', 'sequence_length'],
      attention_mask: ['batch_size', 'past_sequence_length + sequence_length'],
      total: ['batch_size', 'total_sequence_length'],
      next: ['batch_size', 'past_sequence_length + 1'],
      'past_key_values.0.key': ['batch_size', 4, 'past_sequence_length', 16],
      'past_key_values.0.value': ['batch_size', 4, null, 16],
    });
    expect(shapes).toEqual([
      [2, 8],
      [2, 8],
      [2, 8],
      [2, 1],
      [2, 4, 0, 16],
      [2, 4, 0, 16],
    ]);
  });

  it('fits images and audio', () => {
    expect(first({ x: ['N', 3, 'H', 'W'] }, 'float32')).toEqual([[2, 3, 32, 32]]);
    expect(first({ x: [null, null, null, null] }, 'float32')).toEqual([[2, 3, 32, 32]]);
    expect(first({ x: ['N', 'H', 'W', 3] }, 'float32')).toEqual([[2, 32, 32, 3]]);
    expect(first({ x: ['batch', 'samples'] }, 'float32')).toEqual([[2, 512]]);
  });

  it('gives one symbol one size', () => {
    expect(first({ a: ['n', 4], b: [3, 'n'] })).toEqual([
      [2, 4],
      [3, 2],
    ]);
  });
});

it('tries few combinations, each once', () => {
  const { variants } = new InputShapes([
    { name: 'x', dtype: 'float32', shape: ['batch', 'channels', 'height', 'width'] },
    { name: 'past', dtype: 'float32', shape: ['batch', 'past', 'seq'] },
  ]);
  expect(variants.length).toBe(150);
  expect(new Set(variants.map((sizes) => JSON.stringify(sizes))).size).toBe(150);
  expect(new InputShapes([{ name: 'x', dtype: 'float32', shape: [2, 3] }]).variants.length).toBe(1);
});
