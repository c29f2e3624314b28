/** Caches before the first token, by what the model declares. */
import { describe, expect, it } from 'vitest';
import { pastInput } from '../../../src/data/text/inputs.js';
import type { ValueInfo } from '../../../src/onnx/model.js';
import { model, node, value } from '../../support/models.js';
import { parse } from '../../support/wire.js';

function declared(name: string, shape: readonly (string | number)[]): ValueInfo {
  const { graph } = parse(
    model({
      nodes: [node('Identity', [name], 'y')],
      inputs: [value(name, [...shape])],
      outputs: ['y'],
    }),
  );
  return graph.inputs[0]!;
}

describe('a cache before the first token', () => {
  it('is empty, and a state is zero', () => {
    const cache = declared('past_key_values.0.key', ['batch', 2, 'past', 8]);
    expect(pastInput(cache).shape).toEqual([2, 0, 8]);
    expect(pastInput(declared('past.0.conv', ['batch', 64, 2])).shape).toEqual([64, 2]);
  });

  it.each([
    ['past_key_values.0.key', ['batch', 2, 16, 8], /so that it can be empty/],
    ['past_sequence_lengths', ['batch'], /belongs to PagedAttention/],
  ])('is refused where it cannot be empty: %s', (name, shape, reason) => {
    expect(() => pastInput(declared(name, shape))).toThrow(reason);
  });
});
