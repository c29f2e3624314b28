/** Rows of tokens as one array, padded at their ends. */
import type { EncodedText } from './encoder.js';
import type { Role } from './inputs.js';

/** The numbers of one token. */
const values: Readonly<
  Record<Role | 'labels', (text: EncodedText, at: number, padding: number) => number>
> = {
  ids: ({ ids }, at) => ids[at]!,
  mask: () => 1,
  types: ({ types }, at) => types[at]!,
  positions: (_, at) => at,
  labels: ({ labels }, at, ignored) => labels?.[at] ?? ignored,
};

/**
 * @param length of every row
 * @param padding the number after the end of ids and labels; masks, types and positions have 0 there
 * @returns row-major
 */
export function padded(
  texts: readonly EncodedText[],
  role: Role | 'labels',
  length: number,
  padding: number,
): Float64Array {
  const result = new Float64Array(texts.length * length);
  if (role === 'ids' || role === 'labels') result.fill(padding);
  const value = values[role];
  texts.forEach((text, row) => {
    for (let at = 0; at < text.ids.length; at++) {
      result[row * length + at] = value(text, at, padding);
    }
  });
  return result;
}
