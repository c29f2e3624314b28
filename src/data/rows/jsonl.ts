/** A JSON object on each line. */

import { BadRow } from './bad-row.js';
import { brief } from './brief.js';
import { linesOf } from './lines.js';
import { type OpenFormat, type Row, type RowRecord, textOf } from './row.js';

export const jsonLines: OpenFormat = (source) => ({
  *records(): Generator<RowRecord> {
    for (const { bytes, start, number } of linesOf(source)) {
      const isBlank = bytes.every((byte) => byte === 32 || byte === 9);
      if (!isBlank) yield { bytes, start, end: start + bytes.length, line: number };
    }
  },
  parse: parseObject,
});

function parseObject(bytes: Uint8Array): Row {
  const value = parseJson(textOf(bytes));
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Row;
  const found = Array.isArray(value) ? 'a list' : brief(value);
  throw new BadRow(
    `found ${found}, expected a JSON object`,
    'As in {"text": "..", "label": ".."}.',
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadRow(
      `it is not JSON: ${(error as Error).message}`,
      'Write one JSON object on each line.',
    );
  }
}
