/** Rows with texts as rows of tokens. */
import { BadRow } from '../rows/bad-row.js';
import { textIn } from '../rows/fields.js';
import type { Row } from '../rows/row.js';
import { ChatTemplate, tokensBefore } from './chat.js';
import type { TextFields } from './fields.js';
import type { Encoding, TextTokenizer } from './tokenizer.js';

/** Tokens with what a language model is to predict, if it is one. */
export interface EncodedText extends Encoding {
  /** The ids, or undefined at places that do not count. */
  readonly labels?: readonly (number | undefined)[];
}

export interface RowEncoder {
  /**
   * What can be said without encoding.
   * @throws BadRow
   */
  check(row: Row): void;
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
  const read = (row: Row) => textIn(row, texts[0]!);
  return {
    check: read,
    encode(row, maxLength) {
      const encoding = tokenizer.encode([read(row)], { maxLength });
      return [{ ...encoding, labels: encoding.ids }];
    },
  };
}

/** Conversations in which a language model predicts what the assistant says. */
export function chatEncoder(tokenizer: TextTokenizer, { texts }: TextFields): RowEncoder {
  const template = ChatTemplate.of(tokenizer);
  const render = (row: Row) => template.render(row, texts[0]!);
  return {
    check: render,
    encode(row, maxLength) {
      const { text, answers } = render(row);
      const { ids, types } = tokenizer.encode([text], { special: false });
      const at = (place: number) => tokensBefore(ids, tokenizer, text.slice(0, place));
      const ranges = answers.map(([start, end]) => [at(start), at(end)] as const);
      const isAnswer = (i: number) => ranges.some(([start, end]) => i >= start && i < end);
      const labels = ids.map((id, i) => (isAnswer(i) ? id : undefined));
      const cut = <T>(all: readonly T[]) => tokenizer.cut(all, maxLength ?? all.length);
      return [{ ids: cut(ids), types: cut(types), labels: cut(labels) }];
    },
  };
}

/** @throws BadRow for a row with a text of more tokens than a model takes */
export function checkLength(encoder: RowEncoder, row: Row, maxLength: number): void {
  const length = Math.max(...encoder.encode(row, undefined).map(({ ids }) => ids.length));
  if (length <= maxLength) return;
  throw new BadRow(
    `its text has ${length} tokens, expected at most ${maxLength}`,
    'Without --no-truncate such texts are cut.',
  );
}
