/** Facts about all rows of a file together, before the first batch is made from them. */
import { OnnxLoraError } from '../../errors.js';
import { classList, readClassFile } from '../classes.js';
import type { DataRequest } from '../request.js';
import { BadRow } from '../rows/bad-row.js';
import { fieldOf } from '../rows/fields.js';
import type { LabelCollector } from '../rows/label-collector.js';
import { labelCollector } from '../rows/labels.js';
import type { Row } from '../rows/row.js';
import {
  chatEncoder,
  checkLength,
  jointEncoder,
  languageEncoder,
  type RowEncoder,
  separateEncoder,
} from './encoder.js';
import { chooseFields, type TextFields } from './fields.js';
import { LONG_TEXT, type TextTokenizer } from './tokenizer.js';

/** Chooses the fields at the first row, checks every row, and collects the labels. */
export class FirstPass {
  private readonly labels: LabelCollector | undefined;
  private chosen: { readonly fields: TextFields; readonly encoder: RowEncoder } | undefined;

  constructor(
    private readonly path: string,
    private readonly tokenizer: TextTokenizer,
    private readonly limit: number,
    private readonly request: DataRequest,
  ) {
    const { labelKind, labels, classes, ignoreIndex } = request;
    const known = labels === undefined ? classes : readClassFile(labels);
    this.labels = labelCollector(labelKind, { classes: known, ignoreIndex });
  }

  /** @throws BadRow for a row that is not a sample; OnnxLoraError where fields stay open */
  take(row: Row): void {
    this.chosen ??= this.choose(row);
    const { fields, encoder } = this.chosen;
    this.check(encoder, row);
    if (fields.label !== undefined) this.labels?.note(fieldOf(row, fields.label));
  }

  /** @throws BadRow also where a text has no tokens */
  private check(encoder: RowEncoder, row: Row): void {
    try {
      encoder.check(row, this.limit);
      if (this.request.truncate === false) checkLength(encoder, row, this.limit);
      else if (!this.tokenizer.coversAll || hasLongText(row)) encoder.encode(row, this.limit);
    } catch (error) {
      const isText = error instanceof OnnxLoraError && error.code === 'invalid-data';
      throw isText ? new BadRow(error.message, error.hint) : error;
    }
  }

  /** After the last row. */
  result() {
    const labels = this.labels?.finish();
    const { classes } = labels ?? {};
    if (classes) this.request.onNote?.(`${this.path}: the classes are ${classList(classes)}`);
    return { ...this.chosen!, labels };
  }

  private choose(row: Row) {
    const { onNote } = this.request;
    const fields = chooseFields(row, this.request);
    const { texts, label } = fields;
    const named = label === undefined ? '' : `, labels from ${label}`;
    onNote?.(
      `${this.path}: ${fields.isChat ? 'messages' : 'texts'} from ${texts.join(' and ')}${named}`,
    );
    return { fields, encoder: encoderFor(this.tokenizer, fields, this.request) };
  }
}

/** Such a text may be one that takes too long. */
function hasLongText(row: Row): boolean {
  return Object.values(row).some((value) => typeof value === 'string' && value.length > LONG_TEXT);
}

function encoderFor(
  tokenizer: TextTokenizer,
  fields: TextFields,
  { labelKind, onNote }: DataRequest,
): RowEncoder {
  if (fields.isChat) return chatEncoder(tokenizer, fields, onNote);
  if (labelKind === 'tokens') return languageEncoder(tokenizer, fields);
  const encoder = labelKind === 'pairs' ? separateEncoder : jointEncoder;
  return encoder(tokenizer, fields);
}
