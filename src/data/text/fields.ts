/** Which fields hold the texts of a row. */
import { OnnxLoraError } from '../../errors.js';
import { askerOf, type LabelRequest } from '../label-kind.js';
import { firstOf, labelNames } from '../rows/fields.js';
import type { Row } from '../rows/row.js';
import type { TextOptions } from './options.js';

export interface TextFields {
  /** One; two for pairs; three with a text that is not the one to find. */
  readonly texts: readonly string[];
  readonly label: string | undefined;
  /** Whether the first field holds the messages of a conversation. */
  readonly isChat: boolean;
}

type TextRequest = TextOptions & LabelRequest;

/** Names that go together, in the order of their roles. */
const COMMON: readonly (readonly string[])[] = [
  ['sentence1', 'sentence2'],
  ['premise', 'hypothesis'],
  ['question1', 'question2'],
  ['anchor', 'positive', 'negative'],
  ['query', 'positive', 'negative'],
  ['question', 'answer'],
  ['text', 'text_pair'],
  ['text'],
  ['sentence'],
  ['content'],
  ['review'],
  ['body'],
  ['tweet'],
];

const MESSAGES = 'messages';

/**
 * The fields that the options name, and for those that they do not, the ones that are called as is
 * common. A second text is taken where its name goes with the first one's.
 * @param row the first one of the file
 * @throws OnnxLoraError `invalid-argument` where that leaves one open
 */
export function chooseFields(row: Row, request: TextRequest): TextFields {
  const isLanguage = request.labelKind === 'tokens';
  const areCompared = request.labelKind === 'pairs';
  const texts = isLanguage ? [languageField(row, request)] : textFields(row, request);
  if (areCompared && texts.length < 2) {
    const hint = 'Name the fields with `textField` and `textPairField`.';
    throw open(`${askerOf(request)} takes an anchor and the text to find`, row, hint);
  }
  const isChat = isLanguage && Array.isArray(row[texts[0]!]);
  const needsLabel = !isLanguage && !areCompared;
  return { texts, label: needsLabel ? labelField(row, request) : undefined, isChat };
}

function languageField(row: Row, request: TextRequest): string {
  const { textField, textPairField } = request;
  if (textPairField !== undefined) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${askerOf(request)} takes one text a row, found a field for a second one`,
      {
        hint: 'Put both into one text, or use messages with the chat template of the tokenizer.',
      },
    );
  }
  const common = [MESSAGES, ...COMMON.map(([first]) => first!)];
  const found = textField ?? firstOf(row, common);
  if (found !== undefined) return found;
  throw open('none of the fields is known to hold a text', row, 'Name it with `textField`.');
}

function textFields(row: Row, request: TextRequest): string[] {
  const { textField, textPairField, textNegativeField } = request;
  const areCompared = request.labelKind === 'pairs';
  const [first, second, third] = textField === undefined ? commonFields(row) : [textField];
  const negative = textNegativeField ?? (areCompared ? third : undefined);
  const names = [first, textPairField ?? second, negative];
  const missing = names.indexOf(undefined);
  if (
    first === undefined ||
    (missing >= 0 && names.slice(missing).some((name) => name !== undefined))
  ) {
    const option = missing === 0 ? 'textField' : 'textPairField';
    throw open('not all fields with texts are known', row, `Name them with \`${option}\`.`);
  }
  if (textNegativeField !== undefined && !areCompared) {
    throw new OnnxLoraError(
      'invalid-argument',
      `a third text is for a loss that compares texts, not for ${askerOf(request)}`,
    );
  }
  return names.filter((name) => name !== undefined);
}

function commonFields(row: Row): string[] {
  const has = (name: string) => Object.hasOwn(row, name);
  return (COMMON.find((names) => names.slice(0, 2).every(has)) ?? []).filter(has);
}

function labelField(row: Row, { labelField: given }: TextOptions): string {
  const found = given ?? firstOf(row, labelNames);
  if (found !== undefined) return found;
  throw open('none of the fields is known to hold a label', row, 'Name it with `labelField`.');
}

function open(problem: string, row: Row, hint: string): OnnxLoraError {
  const names = Object.keys(row).join(', ');
  return new OnnxLoraError('invalid-argument', `${problem}; the first row has: ${names}`, { hint });
}
