import { describe, expect, it } from 'vitest';
import type { Dataset } from '../../../src/data/dataset.js';
import type { Dim } from '../../../src/onnx/model.js';
import { batchShapes } from '../../../src/training/layers/data-shapes.js';

const input = (name: string, shape: readonly Dim[]) => ({ name, shape });
const inputs = [
  input('input_ids', ['batch', 'length']),
  input('attention_mask', ['batch', 'length']),
];

/** 12 samples of these shapes. */
function datasetOf(shapes: Readonly<Record<string, readonly number[]>>): Dataset {
  const keys = Object.entries(shapes).map(
    ([key, shape]) => [key, { dtype: 'int64', shape }] as const,
  );
  return { label: 'data', size: 12, keys: new Map(keys), batch: async () => new Map(), close() {} };
}

const sequences = datasetOf({ input_ids: [16], attention_mask: [16], labels: [] });

describe('shapes that all batches have', () => {
  it('are those of the samples behind the size of a batch', () => {
    expect(batchShapes(inputs, sequences, 4, true)).toEqual(
      new Map([
        ['input_ids', [4, 16]],
        ['attention_mask', [4, 16]],
      ]),
    );
  });

  it('do not exist where padding is cut off, or the last batch is smaller', () => {
    expect(batchShapes(inputs, sequences, 4, false)).toEqual(new Map());
    expect(batchShapes(inputs, sequences, 5, true)).toEqual(new Map());
  });

  it('do not exist where samples may be left out later', () => {
    const fewer = { ...sequences, leaveOut: () => undefined };
    expect(batchShapes(inputs, fewer, 4, true)).toEqual(new Map());
  });

  it('count both halves of pairs', () => {
    const pairs = datasetOf({ input_ids: [2, 16], attention_mask: [2, 16] });
    expect(batchShapes(inputs, pairs, 4, true).get('input_ids')).toEqual([8, 16]);
  });

  it('have axes of size 0 in any case', () => {
    const cache = [input('past', ['batch', 2, 'before', 8])];
    const empty = datasetOf({ past: [2, 0, 8] });
    expect(batchShapes(cache, empty, 5, true).get('past')).toEqual(['batch', 2, 0, 8]);
  });

  it('do not overrule sizes that the model has', () => {
    const fixed = [input('input_ids', [8, 'length'])];
    expect(batchShapes(fixed, sequences, 4, true)).toEqual(new Map());
  });
});
