/** Comma- or tab-separated values with the names of the fields on the first line (RFC 4180). */
import { OnnxLoraError } from '../../errors.js';
import type { ByteSource } from '../../onnx/byte-source.js';
import { BadRow } from './bad-row.js';
import { linesOf } from './lines.js';
import { type OpenFormat, type Row, type RowRecord, textOf } from './row.js';

const QUOTE = 34;

/** A quote that was never closed would take everything after it for one field. */
const MAX_RECORD_BYTES = 2 ** 24;

/** @param delimiter one character of ASCII */
export function separatedValues(delimiter: string): OpenFormat {
  return (source) => {
    const names = headerOf(source, delimiter);
    return {
      *records() {
        const all = recordsOf(source, delimiter);
        all.next();
        yield* all;
      },
      parse: (bytes) => rowOf(names, fieldsOf(textOf(bytes), delimiter)),
    };
  };
}

function headerOf(source: ByteSource, delimiter: string): string[] {
  const [first] = recordsOf(source, delimiter);
  if (!first) return [];
  try {
    const names = fieldsOf(textOf(first.bytes), delimiter).map((name) => name.trim());
    const seen = new Set<string>();
    const twice = names.find((name) => seen.size === seen.add(name).size);
    if (twice === undefined) return names;
    throw new BadRow(`two fields are called ${JSON.stringify(twice)}`);
  } catch (error) {
    if (!(error instanceof BadRow)) throw error;
    throw new OnnxLoraError('invalid-data', `${source.label}:1: ${error.message}`, {
      hint: error.hint ?? 'The first line names the fields.',
    });
  }
}

function rowOf(names: readonly string[], fields: readonly string[]): Row {
  if (fields.length === names.length) {
    return Object.fromEntries(names.map((name, i) => [name, fields[i]]));
  }
  throw new BadRow(
    `found ${fields.length} fields, expected ${names.length} (${names.join(', ')})`,
    'Put fields with a separator or a quote in quotes: "a, ""b""".',
  );
}

/** Records without blank lines; the first one is the header. */
function* recordsOf(source: ByteSource, delimiter: string): Generator<RowRecord> {
  const separator = delimiter.charCodeAt(0);
  let open: { readonly start: number; readonly line: number } | undefined;
  for (const { bytes, start, number } of linesOf(source)) {
    if (!open && bytes.length === 0) continue;
    const end = start + bytes.length;
    const { start: first, line } = open ?? { start, line: number };
    if (end - first > MAX_RECORD_BYTES) throw tooLong(source, line, open !== undefined);
    // Each line is looked at once, however many of them a field has.
    const isOpen = endsInQuotes(bytes, separator, open !== undefined);
    if (isOpen) {
      open = { start: first, line };
      continue;
    }
    // Line ends within a field belong to it.
    yield { bytes: open ? source.read(first, end) : bytes, start: first, end, line };
    open = undefined;
  }
  if (open) throw unclosed(source, open.line);
}

/**
 * Whether a field is open where the line ends. A field is quoted where a quote is its first character.
 * @param isOpen whether one is where the line starts
 */
function endsInQuotes(bytes: Uint8Array, delimiter: number, isOpen: boolean): boolean {
  let at = isOpen ? closingQuote(bytes, -1) : 0;
  if (at < 0) return true;
  // Behind a closing quote the field goes on to its delimiter.
  for (let isClosed = isOpen; ; isClosed = false, at++) {
    if (!isClosed && bytes[at] === QUOTE) at = closingQuote(bytes, at);
    if (at < 0) return true;
    at = bytes.indexOf(delimiter, at);
    if (at < 0) return false;
  }
}

/** The end of the field that opens at `start`; -1 for none. Inside, two quotes mean one. */
function closingQuote(bytes: Uint8Array, start: number): number {
  let at = bytes.indexOf(QUOTE, start + 1);
  while (at >= 0 && bytes[at + 1] === QUOTE) at = bytes.indexOf(QUOTE, at + 2);
  return at;
}

/**
 * The fields of one record.
 * @throws BadRow for text after a closing quote
 */
function fieldsOf(record: string, delimiter: string): string[] {
  const fields: string[] = [];
  for (let at = 0; at <= record.length; at++) {
    const quoted = record[at] === '"';
    const field = quoted ? quotedField(record, at) : plainField(record, at, delimiter);
    fields.push(field.text);
    at = field.end;
    if (at < record.length && record[at] !== delimiter) {
      throw new BadRow(
        `field ${fields.length} goes on after its closing quote`,
        'Inside quotes, a quote is written twice: "a ""b""".',
      );
    }
  }
  return fields;
}

function plainField(record: string, start: number, delimiter: string) {
  const found = record.indexOf(delimiter, start);
  const end = found < 0 ? record.length : found;
  return { text: record.slice(start, end), end };
}

function quotedField(record: string, start: number) {
  let text = '';
  for (let at = start + 1; ; ) {
    const quote = record.indexOf('"', at);
    if (quote < 0) throw new BadRow('a quoted field is not closed');
    text += record.slice(at, quote);
    if (record[quote + 1] !== '"') return { text, end: quote + 1 };
    text += '"';
    at = quote + 2;
  }
}

function tooLong({ label }: ByteSource, line: number, isOpen: boolean): OnnxLoraError {
  const limit = `${MAX_RECORD_BYTES / 2 ** 20} MiB`;
  return new OnnxLoraError(
    'invalid-data',
    isOpen
      ? `${label}:${line}: a field opens with a quote that nothing closes within ${limit}`
      : `${label}:${line}: the record is longer than ${limit}, expected one row a record`,
    {
      hint: isOpen ? QUOTES : 'Split its text into several rows.',
    },
  );
}

function unclosed({ label }: ByteSource, line: number): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-data',
    `${label}:${line}: a field opens with a quote that nothing closes`,
    { hint: QUOTES },
  );
}

const QUOTES = 'Inside quotes, a quote is written twice; a field that begins with one is quoted.';
