/** The recorded tokenizers; test/fixtures/tokenizers/make.py makes them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const FIXTURES = join(import.meta.dirname, '../../../fixtures/tokenizers');

/** The folder of a tokenizer. */
export function tokenizerPath(kind: string): string {
  return join(FIXTURES, kind);
}

export interface RecordedEncoding {
  readonly texts: readonly [string, string?];
  readonly maxLength: number | null;
  readonly ids: readonly number[];
  readonly types: readonly number[];
}

/** What transformers makes of some texts. */
export function recorded(kind: string): RecordedEncoding[] {
  return JSON.parse(readFileSync(join(tokenizerPath(kind), 'expected.json'), 'utf8'));
}
