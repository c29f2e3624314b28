import { writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BadRow } from '../../../src/data/rows/bad-row.js';
import { textIn } from '../../../src/data/rows/fields.js';
import type { Row } from '../../../src/data/rows/row.js';
import { RowFile, type RowFileOptions } from '../../../src/data/rows/row-file.js';
import { failure, temporaryFolder } from '../../support/files.js';

const folder = temporaryFolder();

function open(text: string | Uint8Array, name: string, options?: RowFileOptions, check = () => {}) {
  return RowFile.open(folder.write(Buffer.from(text), name), check, options);
}

const rowOf = (file: RowFile, number: number) => file.at(number, (row) => row);

async function rowsOf(text: string | Uint8Array, name: string, options?: RowFileOptions) {
  const file = await open(text, name, options);
  // From the last to the first: every row is found on its own.
  const rows = Array.from({ length: file.size }, (_, i) => rowOf(file, file.size - 1 - i));
  file.close();
  return rows.reverse();
}

describe('JSON lines', () => {
  it('are rows, blank lines are none, and the last one needs no end', async () => {
    const rows = await rowsOf('{"a": 1}\n\n  \n{"a": "ä\\n"}\n{"a": [2]}', 'x.jsonl');
    expect(rows).toEqual([{ a: 1 }, { a: 'ä\n' }, { a: [2] }]);
  });

  it('may end in CRLF and begin with a byte order mark', async () => {
    expect(await rowsOf('\uFEFF{"a":1}\r\n{"a":2}\r\n', 'x.jsonl')).toEqual([{ a: 1 }, { a: 2 }]);
  });

  it('may be longer than what is read at once', async () => {
    const long = 'x'.repeat(3_000_000);
    const text = [{ a: long }, { a: 'y' }, { a: long }].map((row) => JSON.stringify(row));
    const rows = await rowsOf(text.join('\n'), 'x.jsonl');
    expect(rows.map(({ a }) => (a as string).length)).toEqual([3_000_000, 1, 3_000_000]);
  });

  it('are refused where one is a little longer, and ends', async () => {
    const line = Buffer.alloc(2 ** 25 + 1, 'x');
    const text = Buffer.concat([line, Buffer.from('\n{"a": 1}\n')]);
    const { message } = await failure(() => open(text, 'x.jsonl'), 'invalid-data');
    expect(message).toMatch(/x\.jsonl:1: the line is longer than 33554432 bytes/);
  });

  it('are refused where one is longer than any row', async () => {
    const text = Buffer.alloc(2 ** 25 + 2 ** 21, 'x');
    const { message } = await failure(() => open(text, 'x.jsonl'), 'invalid-data');
    expect(message).toMatch(/x\.jsonl:1: the line is longer than 33554432 bytes/);
  });

  it('of values nested deeper than can be shown are told all the same', async () => {
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    const check = (row: Row) => textIn(row, 'a');
    const open = RowFile.open(folder.write(Buffer.from(`{"a":${deep}}`), 'x.jsonl'), check);
    const { message } = await failure(() => open, 'invalid-data');
    expect(message).toMatch(/the field a holds a value that is nested too deep, expected a text/);
  });

  it('that are no JSON, or no objects, are named by file and line', async () => {
    const wrong = await failure(() => open('{"a":1}\n\n{"a":', 'x.jsonl'), 'invalid-data');
    expect(wrong.message).toMatch(/x\.jsonl:3: it is not JSON/);
    const list = await failure(() => open('[1, 2]', 'x.jsonl'), 'invalid-data');
    expect(list.message).toMatch(/x\.jsonl:1: found a list, expected a JSON object/);
  });

  it('with bytes of another encoding are named', async () => {
    const latin1 = Buffer.from('{"a":"b"}\n{"a":"\xe4"}\n', 'latin1');
    const { message } = await failure(() => open(latin1, 'x.jsonl'), 'invalid-data');
    expect(message).toMatch(/x\.jsonl:2: it is not UTF-8 throughout/);
  });

  it('in UTF-16 are told as such', async () => {
    const text = Buffer.from('\uFEFF{"a":1}\n', 'utf16le');
    const { message } = await failure(() => open(text, 'x.jsonl'), 'invalid-data');
    expect(message).toMatch(/UTF-16, expected UTF-8/);
  });
});

describe('separated values', () => {
  it('are rows by the names on the first line', async () => {
    expect(await rowsOf('text,label\nso so,1\n,2\n', 'x.csv')).toEqual([
      { text: 'so so', label: '1' },
      { text: '', label: '2' },
    ]);
  });

  it('in quotes hold separators, quotes and ends of lines', async () => {
    const csv = 'a,b\r\n"x, ""y""\r\n\r\nz",1\r\n"","2"\r\n"""",3\r\n';
    expect(await rowsOf(csv, 'x.csv')).toEqual([
      { a: 'x, "y"\r\n\r\nz', b: '1' },
      { a: '', b: '2' },
      { a: '"', b: '3' },
    ]);
  });

  it('keep quotes that stand inside a field as they are', async () => {
    const tsv = 'a\tb\n5" pipe\tit "" is\nx\t"y"\n';
    expect(await rowsOf(tsv, 'x.tsv')).toEqual([
      { a: '5" pipe', b: 'it "" is' },
      { a: 'x', b: 'y' },
    ]);
  });

  it('take time in proportion, however many lines with quotes a field has', async () => {
    const field = '""quoted"" words\n'.repeat(200_000);
    const start = performance.now();
    const [row] = await rowsOf(`a,b\n"${field}",1\n`, 'x.csv');
    expect(performance.now() - start).toBeLessThan(4000);
    expect(row).toEqual({ a: '"quoted" words\n'.repeat(200_000), b: '1' });
  });

  it('close a field on another line and open the next one there', async () => {
    expect(await rowsOf('a,b,c\n"1\n""2","3\n4",5\n6,7,8\n', 'x.csv')).toEqual([
      { a: '1\n"2', b: '3\n4', c: '5' },
      { a: '6', b: '7', c: '8' },
    ]);
  });

  it('with a hundred thousand names are told of two that are equal', async () => {
    const names = Array.from({ length: 100_000 }, (_, i) => `n${i}`).join(',');
    const start = performance.now();
    const { message } = await failure(() => open(`${names},n7\n1\n`, 'x.csv'), 'invalid-data');
    expect(performance.now() - start).toBeLessThan(4000);
    expect(message).toMatch(/x\.csv:1: two fields are called "n7"/);
  });

  it('of another number than the header names are bad rows, with their first line', async () => {
    const csv = 'a,b\n"1\n2",x\n1,2,3\n';
    const { message } = await failure(() => open(csv, 'x.csv'), 'invalid-data');
    expect(message).toMatch(/x\.csv:4: found 3 fields, expected 2 \(a, b\)/);
  });

  it('that go on behind a closing quote, or never close one, are told', async () => {
    const behind = await failure(() => open('a,b\n"x"y,1\n', 'x.csv'), 'invalid-data');
    expect(behind.message).toMatch(/x\.csv:2: field 1 goes on after its closing quote/);
    const open2 = await failure(() => open('a,b\n1,2\n"x,1\n3,4\n', 'x.csv'), 'invalid-data');
    expect(open2.message).toMatch(/x\.csv:3: a field opens with a quote that nothing closes/);
  });

  it('that are closed and longer than 16 MiB are told apart from those that never close', async () => {
    const text = 'a b '.repeat(2 ** 22 + 1);
    const closed = await failure(() => open(`a,b\n"${text}",1\n`, 'x.csv'), 'invalid-data');
    expect(closed.message).toMatch(/x\.csv:2: the record is longer than 16 MiB, expected one row/);
    const lines = `${'a b '.repeat(2 ** 12)}\n`.repeat(2 ** 10 + 1);
    const never = await failure(() => open(`a,b\n"${lines}`, 'x.csv'), 'invalid-data');
    expect(never.message).toMatch(/:2: a field opens with a quote that nothing closes within 16 M/);
  });
});

it.each(['x.jsonl', 'x.csv', 'x.parquet'])('an empty file is told: %s', async (name) => {
  const { message } = await failure(() => open('', name), 'invalid-data');
  expect(message).toMatch(/: it holds no rows, for it is empty \(0 bytes\)$/);
});

describe('bad rows', () => {
  const jsonl = '{"a":1}\noops\n{"a":2}\n{}\n{"a":3}\n';

  it('are left out and counted where that is asked for, and the first ones named', async () => {
    const notes: string[] = [];
    const onNote = (note: string) => notes.push(note);
    const file = await open(jsonl, 'x.jsonl', { skipBadRows: true, onNote }, ((row: object) => {
      if (!('a' in row)) throw new BadRow('no a');
    }) as () => void);
    expect([rowOf(file, 0), rowOf(file, 1), rowOf(file, 2)]).toEqual([
      { a: 1 },
      { a: 2 },
      { a: 3 },
    ]);
    expect(file.skipped).toBe(2);
    expect(notes[0]).toMatch(/left out: .*x\.jsonl:2: it is not JSON/);
    expect(notes[1]).toMatch(/left out: .*x\.jsonl:4: no a/);
    file.close();
  });

  it('are an error where no row is left', async () => {
    const all = await failure(
      () => open('x\ny\n', 'x.jsonl', { skipBadRows: true }),
      'invalid-data',
    );
    expect(all.message).toMatch(/all of its 2 rows are bad/);
    for (const [text, name] of [
      ['', 'x.jsonl'],
      ['a,b\n', 'x.csv'],
      ['', 'x.tsv'],
    ] as const) {
      const { message } = await failure(() => open(text, name), 'invalid-data');
      expect(message).toMatch(/it holds no rows/);
    }
  });
});

describe('a file of rows', () => {
  it('that another program has written in the meantime is told', async () => {
    const long = `{"a":"${'x'.repeat(100_000)}"}\n`;
    const path = folder.write(Buffer.from(long + long), 'x.jsonl');
    const file = await RowFile.open(path, () => {});
    writeFileSync(path, '.'.repeat(2 * long.length));
    const { message } = await failure(() => rowOf(file, 1), 'io');
    expect(message).toMatch(/has changed since it was opened: at byte 100009/);
    file.close();
  });

  it('is not read where a signal says so', async () => {
    const signal = AbortSignal.abort();
    await failure(() => open('{}\n', 'x.jsonl', { signal }), 'aborted');
  });
});
