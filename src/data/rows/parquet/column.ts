/** A column in one group of rows, read a few rows at a time. Of its pages one is in memory. */
import type { ColumnMetaData } from 'hyparquet';
import { assembleLists } from 'hyparquet/src/assemble.js';
import { DEFAULT_PARSERS } from 'hyparquet/src/convert.js';
import { getMaxDefinitionLevel, getMaxRepetitionLevel } from 'hyparquet/src/schema.js';
import type { ColumnDecoder, DecodedArray, SchemaTree } from 'hyparquet/src/types.js';
import type { ByteSource } from '../../../onnx/byte-source.js';
import { READ_MS, withinTime } from '../../../time-limit.js';
import { type Cursor, cursorOf, readRuns } from './bits.js';
import type { Codecs } from './codecs.js';
import { limit, MAX_LEVELS, MAX_OPEN_BYTES, MAX_OPEN_VALUES, MAX_PAGE_VALUES } from './limits.js';
import { type Page, pagesOf } from './pages.js';
import { readValues, type Values } from './values.js';

/** Bytes that the open pages of all columns hold together. */
export class Open {
  private values = 0;
  private bytes = 0;

  /** @throws OnnxLoraError `invalid-data` where it is too much */
  change(values: number, bytes: number): void {
    this.values += values;
    this.bytes += bytes;
    limit('the number of values of pages side by side', this.values, MAX_OPEN_VALUES);
    limit('the size of pages side by side', this.bytes, MAX_OPEN_BYTES);
  }
}

/** Levels and values that belong together. */
interface Records {
  /** 0 where a row starts. Empty where no column above it repeats. */
  readonly repetition: Uint8Array;
  readonly definition: Uint8Array;
  readonly values: Values;
}

export class ColumnReader {
  private readonly pages: Generator<Page>;
  private readonly decoder: ColumnDecoder;
  private readonly maxRepetition: number;
  private readonly maxDefinition: number;
  private dictionary: Values | undefined;
  private held = { values: 0, bytes: 0 };
  /** The beginning of a row whose end is on the next page. */
  private rest: Records | undefined;
  private rows: Values = [];
  private at = 0;

  /** @param path the elements of the schema from its root to the column */
  constructor(
    file: ByteSource,
    column: ColumnMetaData,
    private readonly path: SchemaTree[],
    codecs: Codecs,
    private readonly open: Open,
  ) {
    this.pages = pagesOf(file, column, codecs);
    const { element } = path.at(-1)!;
    const { type, codec, path_in_schema: pathInSchema } = column;
    this.decoder = {
      type,
      element,
      schemaPath: path,
      pathInSchema,
      codec,
      parsers: DEFAULT_PARSERS,
    };
    this.maxRepetition = getMaxRepetitionLevel(path);
    this.maxDefinition = getMaxDefinitionLevel(path);
    limit('the depth of a column', this.maxDefinition, MAX_LEVELS);
  }

  /**
   * The values of the next rows.
   * @throws RangeError where the column has fewer
   */
  take(count: number): unknown[] {
    return withinTime(READ_MS, () => this.taken(count));
  }

  private taken(count: number): unknown[] {
    const taken: unknown[] = [];
    while (taken.length < count) {
      if (this.at === this.rows.length && !this.load()) {
        throw new RangeError(
          `the column ${this.decoder.pathInSchema.join('.')} ends before its group`,
        );
      }
      const end = Math.min(this.rows.length, this.at + count - taken.length);
      for (; this.at < end; this.at++) taken.push(this.rows[this.at]);
    }
    return taken;
  }

  /** The next page with rows; false after the last one. */
  private load(): boolean {
    this.rows = [];
    this.at = 0;
    for (;;) {
      this.open.change(-this.held.values, -this.held.bytes);
      this.held = { values: 0, bytes: 0 };
      const more = this.next();
      if (this.rows.length > 0 || !more) return this.rows.length > 0;
    }
  }

  private next(): boolean {
    const { value: page, done } = this.pages.next();
    if (done) {
      const { rest } = this;
      this.rest = undefined;
      if (rest) this.rows = this.assembled(rest);
      return false;
    }
    const weight = page.values * (1 + (this.path.length > 2 ? this.maxDefinition : 0));
    this.held = { values: weight, bytes: page.bytes.length };
    this.open.change(weight, page.bytes.length);
    if (page.kind === 'dictionary') {
      // It stays as long as the column.
      this.held = { values: 0, bytes: 0 };
      this.dictionary = readValues(cursorOf(page.bytes), 0, page.values, this.decoder, undefined);
    } else {
      this.rows = this.rowsOf(page);
    }
    return true;
  }

  private rowsOf(page: Page): Values {
    const cursor = cursorOf(page.bytes);
    const { levels } = page;
    const count = page.values;
    const repetition = readLevels(this.maxRepetition, count, cursor, levels?.repetition);
    const definition = readLevels(this.maxDefinition, count, cursor, levels?.definition);
    const present = definition.length > 0 ? countOf(definition, this.maxDefinition) : count;
    const values = readValues(cursor, page.encoding, present, this.decoder, this.dictionary);
    if (this.path.length === 2 && this.maxRepetition === 0) {
      return present === count ? values : withNulls(definition, this.maxDefinition, values);
    }
    if (this.maxRepetition === 0) return this.assembled({ repetition, definition, values });
    return this.wholeRows({ repetition, definition, values });
  }

  /** Keeps the last row back: the next page may go on with it. */
  private wholeRows(found: Records): Values {
    const all = this.rest ? joined(this.rest, found) : found;
    limit('the number of values of a row', all.repetition.length, 2 * MAX_PAGE_VALUES);
    const last = all.repetition.lastIndexOf(0);
    const present = countOf(all.definition.subarray(0, Math.max(0, last)), this.maxDefinition);
    const part = (from: number, to: number | undefined, first: number, end?: number): Records => ({
      repetition: all.repetition.slice(from, to),
      definition: all.definition.slice(from, to),
      values: Array.from(all.values).slice(first, end),
    });
    this.rest = part(Math.max(0, last), undefined, present);
    return last > 0 ? this.assembled(part(0, last, 0, present)) : [];
  }

  private assembled({ repetition, definition, values }: Records): Values {
    if (repetition.length > 0 && repetition[0] !== 0) {
      throw new RangeError('the first row of a column has no beginning');
    }
    const numbers = (levels: Uint8Array) => levels as unknown as number[];
    return assembleLists(
      ...[[], numbers(definition), numbers(repetition), values as DecodedArray, this.path],
    );
  }
}

/** In the first version they come before the values, after their length. */
function readLevels(
  most: number,
  count: number,
  cursor: Cursor,
  apart: Uint8Array | undefined,
): Uint8Array {
  if (most === 0) return new Uint8Array();
  const levels = new Uint8Array(count);
  const width = 32 - Math.clz32(most);
  if (apart) {
    readRuns(cursorOf(apart), width, levels);
  } else {
    const length = cursor.view.getUint32(cursor.offset, true);
    readRuns({ view: cursor.view, offset: cursor.offset + 4 }, width, levels);
    cursor.offset += 4 + length;
  }
  const wrong = levels.find((level) => level > most);
  if (wrong === undefined) return levels;
  throw new RangeError(`a level is ${wrong}, expected at most ${most}`);
}

function countOf(levels: Uint8Array, level: number): number {
  return levels.reduce((count, one) => (one === level ? count + 1 : count), 0);
}

function withNulls(definition: Uint8Array, most: number, values: Values): unknown[] {
  let at = 0;
  return Array.from(definition, (level) => (level === most ? values[at++] : null));
}

function joined(a: Records, b: Records): Records {
  const bytes = (x: Uint8Array, y: Uint8Array) => new Uint8Array([...x, ...y]);
  return {
    repetition: bytes(a.repetition, b.repetition),
    definition: bytes(a.definition, b.definition),
    values: [...Array.from(a.values), ...Array.from(b.values)],
  };
}
