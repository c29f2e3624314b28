/** Rows with texts as rows of tokens. */
import { BadRow } from '../rows/bad-row.js';
import { textIn } from '../rows/fields.js';
import type { Row } from '../rows/row.js';
import { ChatTemplate, type RenderedChat, tokensBefore } from './chat.js';
import type { TextFields } from './fields.js';
import type { Encoding, TextTokenizer } from './tokenizer.js';

/** Tokens with what a language model is to predict, if it is one. */
export interface EncodedText extends Encoding {
  /** The ids, or undefined at places that do not count. */
  readonly labels?: readonly (number | undefined)[];
}

export interface RowEncoder {
  /**
   * An answer without encoding, as far as that is possible.
   * @param maxLength tokens of a sample: a language model has to have something to predict in them
   * @throws BadRow
   */
  check(row: Row, maxLength: number): void;
  /** The rows of the model's inputs that a sample takes: one, or a text and those it is held against. */
  encode(row: Row, maxLength: number | undefined): readonly EncodedText[];
}

/** Texts that are read together: one, or a pair with the tokenizer's separator. */
export function jointEncoder(tokenizer: TextTokenizer, { texts }: TextFields): RowEncoder {
  const [first, second] = texts as [string, string?];
  const read = (row: Row): [string, string?] =>
    second === undefined ? [textIn(row, first)] : [textIn(row, first), textIn(row, second)];
  return {
    check: read,
    encode: (row, maxLength) => [tokenizer.encode(read(row), { maxLength })],
  };
}

/** Texts that are read one by one and compared. */
export function separateEncoder(tokenizer: TextTokenizer, { texts }: TextFields): RowEncoder {
  const read = (row: Row) => texts.map((name) => textIn(row, name));
  return {
    check: read,
    encode: (row, maxLength) => read(row).map((text) => tokenizer.encode([text], { maxLength })),
  };
}

/** Texts all of which a language model predicts. */
export function languageEncoder(tokenizer: TextTokenizer, { texts }: TextFields): RowEncoder {
  const read = (row: Row) => languageTextIn(row, texts[0]!);
  const encode = (text: string, maxLength: number | undefined): EncodedText => {
    const encoding = tokenizer.encode([text], { maxLength });
    return { ...encoding, labels: encoding.ids };
  };
  return {
    check(row, maxLength) {
      const text = read(row);
      if (text.length > LONGEST_TOKEN && maxLength > 1) return;
      checkPredicted(encode(text, maxLength), maxLength);
    },
    encode: (row, maxLength) => [encode(read(row), maxLength)],
  };
}

/** Conversations in which a language model predicts what the assistant says. */
export function chatEncoder(
  tokenizer: TextTokenizer,
  { texts }: TextFields,
  onNote?: (text: string) => void,
): RowEncoder {
  const template = ChatTemplate.of(tokenizer, onNote);
  const render = (row: Row) => template.render(row, texts[0]!);
  return {
    check(row, maxLength) {
      const rendered = render(row);
      if (isSurelyKept(tokenizer, rendered, maxLength)) return;
      checkPredicted(encode(rendered, maxLength), maxLength);
    },
    encode: (row, maxLength) => [encode(render(row), maxLength)],
  };

  function encode({ text, answers }: RenderedChat, maxLength: number | undefined): EncodedText {
    const { ids, types } = tokenizer.encode([text], { special: false });
    const at = (place: number) => tokensBefore(ids, tokenizer, text.slice(0, place));
    const ranges = answers.map(([start, end]) => [at(start), at(end)] as const);
    const isAnswer = (i: number) => ranges.some(([start, end]) => i >= start && i < end);
    const labels = ids.map((id, i) => (isAnswer(i) ? id : undefined));
    const cut = <T>(all: readonly T[]) => tokenizer.cut(all, maxLength ?? all.length);
    return { ids: cut(ids), types: cut(types), labels: cut(labels) };
  }
}

/** Characters that one token may represent, at most: unknown words of WordPiece have 100. */
const LONGEST_TOKEN = 128;

/** Tokens that a tokenizer may put in front of a text by itself. */
const ADDED = 2;

/**
 * Whether a token of an answer is left, as far as can be known without tokens: a token represents a
 * byte at least.
 */
function isSurelyKept(
  { config }: TextTokenizer,
  { text, answers }: RenderedChat,
  maxLength: number,
): boolean {
  const cutsLeft = config.truncation_side === 'left';
  const outside = cutsLeft ? text.slice(answers.at(-1)![1]) : text.slice(0, answers[0]![0]);
  const isLong = answers.some(([start, end]) => end - start > LONGEST_TOKEN);
  return isLong && outside.length > 0 && Buffer.byteLength(outside) + ADDED < maxLength;
}

/** @throws BadRow where no token is left to predict; the first one has nothing to be predicted from. */
function checkPredicted({ ids, labels = [] }: EncodedText, maxLength: number): void {
  if (labels.some((label, i) => i > 0 && label !== undefined)) return;
  if (ids.length < maxLength) {
    throw new BadRow(
      `its text has ${ids.length === 1 ? 'one token' : `${ids.length} tokens`}, and none to predict`,
    );
  }
  throw new BadRow(
    `nothing that it is to learn is left in ${maxLength} tokens`,
    'Raise `maxLength`, or shorten what comes before the answer.',
  );
}

/** @throws BadRow also for a conversation that was written as JSON into a text */
function languageTextIn(row: Row, name: string): string {
  const text = textIn(row, name);
  if (!CONVERSATION.test(text)) return text;
  throw new BadRow(
    `the field ${name} holds a conversation as JSON in a text, which would be learned as it is`,
    'Write the list of messages into the row itself, as in a .jsonl file.',
  );
}

const CONVERSATION = /^\s*\[\s*\{\s*"(?:role|content|from|value)"\s*:/;

/** @throws BadRow for a row with a text of more tokens than a model takes */
export function checkLength(encoder: RowEncoder, row: Row, maxLength: number): void {
  const length = Math.max(...encoder.encode(row, undefined).map(({ ids }) => ids.length));
  if (length <= maxLength) return;
  throw new BadRow(
    `its text has ${length} tokens, expected at most ${maxLength}`,
    'With `truncate: true`, the default, such texts are cut.',
  );
}
