/** Which output continues which input of a cache. */
import { describe, expect, it } from 'vitest';
import { cachePairs } from '../../../src/commands/generate/cache-pairs.js';

const values = (names: readonly string[], rank = 4, dtype = 'float32' as const) =>
  names.map((name) => ({ name, dtype, shape: Array<null>(rank).fill(null) }));

describe('an output of a cache', () => {
  it.each([
    ['past_key_values.0.key past_key_values.0.value', 'present.0.key present.0.value'],
    ['past_key_values.0.key past_key_values.0.value', 'present.0.value present.0.key'],
    [
      'past_key_values.0.key past_key_values.1.key',
      'present_key_values.1.key present_key_values.0.key',
    ],
    ['past_0 past_1 past_10', 'present_10 present_1 present_0'],
    ['past_key_0 past_value_0', 'present_value_0 present_key_0'],
    [
      'past_key_values.0.decoder.key past_key_values.0.encoder.key',
      'present.0.encoder.key present.0.decoder.key',
    ],
    ['past_conv.0 past_key_values.1.key', 'present.1.key present_conv.0'],
  ])('of %s is found by its name in %s', (inputs, outputs) => {
    const pairs = cachePairs(values(inputs.split(' ')), values(outputs.split(' ')))!;
    const bare = (name: string) =>
      name.replace(/past_key_values|present_key_values|past|present/, '');
    for (const [input, output] of pairs) expect(bare(output)).toBe(bare(input));
    expect(pairs.size).toBe(inputs.split(' ').length);
  });

  it('without a like name is found by its place, if all are as many and alike', () => {
    const past = values(['past_key_values.0.key', 'past_key_values.0.value']);
    const named = ['state_a', 'state_b'];
    expect([...cachePairs(past, values(named))!.values()]).toEqual(named);
    expect(cachePairs(past, values(['state_a']))).toBeUndefined();
    expect(cachePairs(past, values(named, 3))).toBeUndefined();
  });
});
