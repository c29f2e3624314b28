/** Which output of a decoder is which input of its next run. */
import type { ValueMeta } from '../../runtime/session.js';

type Value = Pick<ValueMeta, 'name' | 'dtype' | 'shape'>;

/**
 * The output for each input of the cache, by name (`past_key_values.0.key` and `present.0.key`), else
 * in their order where there are as many outputs as inputs of the same types and ranks.
 * @param others outputs that are not the logits
 * @returns undefined where an input has no output
 */
export function cachePairs(
  past: readonly Value[],
  others: readonly Value[],
): ReadonlyMap<string, string> | undefined {
  const byName = past.map((input) => [input, partnerOf(input, others)] as const);
  if (byName.every(([, output]) => output)) return pairs(byName);
  const inOrder = past.map((input, i) => [input, others[i]] as const);
  const isFitting = past.length === others.length && inOrder.every(([a, b]) => b && fits(a, b));
  return isFitting ? pairs(inOrder) : undefined;
}

function pairs(found: readonly (readonly [Value, Value | undefined])[]) {
  const outputs = found.map(([, output]) => output!.name);
  if (new Set(outputs).size < outputs.length) return undefined;
  return new Map(found.map(([input], i) => [input.name, outputs[i]!]));
}

function partnerOf(input: Value, outputs: readonly Value[]): Value | undefined {
  const wanted = part(input.name);
  const found = outputs.filter((output) => part(output.name) === wanted && fits(input, output));
  return found.length === 1 ? found[0] : undefined;
}

/** A name without the words that tell the old cache from the new one. */
function part(name: string): string {
  const short = name.toLowerCase().replace(/(past|present)_key_values?/, '$1');
  const words = short.split(/[^a-z0-9]+|(?<=[a-z])(?=\d)|(?<=\d)(?=[a-z])/);
  return words.filter((word) => word !== '' && !SIDES.has(word)).join('.');
}

const SIDES = new Set(
  ['past', 'present', 'new', 'updated', 'values', 'kv', 'cache', 'in', 'out'].concat(
    ...['input', 'output'],
  ),
);

function fits(input: Value, output: Value): boolean {
  const isOpen = input.shape.length === 0 || output.shape.length === 0;
  return input.dtype === output.dtype && (isOpen || input.shape.length === output.shape.length);
}
