/** Fields of rows: which ones are meant, and their contents. */

import { distance } from 'fastest-levenshtein';
import { BadRow } from './bad-row.js';
import { brief } from './brief.js';
import type { Row } from './row.js';

/**
 * The value of a field.
 * @throws BadRow for a row without it, or with nothing in it
 */
export function fieldOf(row: Row, name: string): unknown {
  const value = Object.hasOwn(row, name) ? row[name] : undefined;
  if (value !== undefined && value !== null) return value;
  const found = Object.keys(row);
  const near = found.find((other) => isNear(name, other));
  const meant = near === undefined ? '' : `Is it ${near}? `;
  const problem = value === null ? 'is null' : `is missing, it has: ${found.join(', ')}`;
  throw new BadRow(
    `the field ${name} ${problem}`,
    `${meant}Name fields with \`textField\`, \`textPairField\` and \`labelField\`.`,
  );
}

/**
 * A field with a text.
 * @throws BadRow for anything else, and for a text of nothing but white space, which may have no token
 */
export function textIn(row: Row, name: string): string {
  const value = fieldOf(row, name);
  if (typeof value === 'string' && value.trim() !== '') return value;
  const found = typeof value === 'string' ? 'is empty' : `holds ${brief(value)}`;
  throw new BadRow(`the field ${name} ${found}, expected a text`);
}

function isNear(name: string, other: string): boolean {
  const [a, b] = [name.toLowerCase(), other.toLowerCase()];
  return a.includes(b) || b.includes(a) || distance(a, b) <= Math.ceil(a.length / 3);
}

/** Names that labels commonly have. */
export const labelNames: readonly string[] = [
  'label',
  'labels',
  'class',
  'category',
  'target',
  'score',
  'sentiment',
  'rating',
];

/** The first of some names that a row has. */
export function firstOf(row: Row, names: readonly string[]): string | undefined {
  return names.find((name) => Object.hasOwn(row, name));
}
