/** Which fields hold the texts of a row. */
import { OnnxLoraError } from '../../errors.js';
import type { LossName } from '../loss-name.js';
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
export function chooseFields(row: Row, loss: LossName, options: TextOptions): TextFields {
  const isLanguage = loss === 'causal-lm';
  const texts = isLanguage ? [languageField(row, options)] : textFields(row, loss, options);
  if (loss === 'mnr' && texts.length < 2) {
    const hint = 'Name the fields with --text-field and --text-pair-field.';
    throw open('the loss mnr takes an anchor and the text to find', row, hint);
  }
  const isChat = isLanguage && Array.isArray(row[texts[0]!]);
  const needsLabel = !isLanguage && loss !== 'mnr';
  return { texts, label: needsLabel ? labelField(row, options) : undefined, isChat };
}

function languageField(row: Row, { textField, textPairField }: TextOptions): string {
  if (textPairField !== undefined) {
    throw new OnnxLoraError(
      'invalid-argument',
      'causal-lm takes one text a row, found a field for a second one',
      {
        hint: 'Put both into one text, or use messages with the chat template of the tokenizer.',
      },
    );
  }
  const common = [MESSAGES, ...COMMON.map(([first]) => first!)];
  const found = textField ?? firstOf(row, common);
  if (found !== undefined) return found;
  throw open('none of the fields is known to hold a text', row, 'Name it with --text-field.');
}

function textFields(row: Row, loss: LossName, options: TextOptions): string[] {
  const { textField, textPairField, textNegativeField } = options;
  const [first, second, third] = textField === undefined ? commonFields(row) : [textField];
  const negative = textNegativeField ?? (loss === 'mnr' ? third : undefined);
  const names = [first, textPairField ?? second, negative];
  const missing = names.indexOf(undefined);
  if (
    first === undefined ||
    (missing >= 0 && names.slice(missing).some((name) => name !== undefined))
  ) {
    const flag = missing === 0 ? '--text-field' : '--text-pair-field';
    throw open('not all fields with texts are known', row, `Name them with ${flag}.`);
  }
  if (textNegativeField !== undefined && loss !== 'mnr') {
    throw new OnnxLoraError(
      'invalid-argument',
      `a third text is for the loss mnr, not for ${loss}`,
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
  throw open('none of the fields is known to hold a label', row, 'Name it with --label-field.');
}

function open(problem: string, row: Row, hint: string): OnnxLoraError {
  const names = Object.keys(row).join(', ');
  return new OnnxLoraError('invalid-argument', `${problem}; the first row has: ${names}`, { hint });
}
