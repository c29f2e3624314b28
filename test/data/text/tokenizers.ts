/** The recorded tokenizers; test/fixtures/tokenizers/make.py makes them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TemporaryFolder } from '../../support/files.js';

const FIXTURES = join(import.meta.dirname, '../../fixtures/tokenizers');

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

export interface RecordedChat {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly text: string;
  readonly ids: readonly number[];
  /** 1 where the assistant speaks. */
  readonly answers: readonly number[];
}

/** Conversations as transformers encodes them with the Unigram tokenizer, and the template. */
export const { template, chats } = JSON.parse(
  readFileSync(join(FIXTURES, 'chat.json'), 'utf8'),
) as { template: string; chats: readonly RecordedChat[] };

/** A copy of the Unigram tokenizer with a chat template; gives the path of its tokenizer.json. */
export function chatTokenizer(files: TemporaryFolder, chat: unknown): string {
  const path = files.fresh('tokenizer.json');
  const from = tokenizerPath('unigram');
  writeFileSync(path, readFileSync(join(from, 'tokenizer.json')));
  const config = JSON.parse(readFileSync(join(from, 'tokenizer_config.json'), 'utf8'));
  const stored = JSON.stringify({ ...config, chat_template: chat });
  writeFileSync(join(dirname(path), 'tokenizer_config.json'), stored);
  return path;
}
