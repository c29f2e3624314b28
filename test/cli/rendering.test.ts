import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { progressOn } from '../../cli/progress.js';
import { specsOf } from '../../cli/specs.js';
import { spelled } from '../../cli/spelling.js';
import { type Column, renderTable, shorten } from '../../cli/table.js';
import { bytes, duration, measure, printable, wrap } from '../../cli/text.js';
import { mergeOptions } from '../../src/commands/options/merge.js';
import { seedOption } from '../../src/options/common.js';
import { nearest } from '../../src/options/near.js';

describe('a table', () => {
  interface Row {
    name: string;
    size: string;
  }
  const columns: Column<Row>[] = [
    { title: 'module', value: ({ name }) => name, flexible: true },
    { title: 'size', value: ({ size }) => size, align: 'right' },
  ];
  const render = (rows: Row[], width?: number) =>
    renderTable(columns, rows, { width, heading: (text) => text }).split('\n');

  it('aligns by what characters take on a terminal', () => {
    expect(
      render([
        { name: '層.0', size: '1' },
        { name: 'a', size: '1,000' },
      ]),
    ).toEqual(['module   size', '層.0        1', 'a       1,000']);
  });

  it('cuts long names at the start, only where it has to fit', () => {
    const name = 'encoder.layer.0.attention.self.query';
    expect(render([{ name, size: '1' }])[1]).toBe(`${name}     1`);
    const cut = render([{ name, size: '1' }], 30);
    expect(cut[1]).toHaveLength(30);
    expect(cut[1]).toMatch(/^….*attention\.self\.query {5}1$/);
  });

  it('leaves optional columns out before it cuts anything', () => {
    const rows = [{ name: 'encoder.query', size: '1' }];
    const optional: Column<Row>[] = [
      ...columns,
      { title: 'op', value: () => 'MatMul', optional: true },
    ];
    const table = (width: number) =>
      renderTable(optional, rows, { width, heading: (text) => text });
    expect(table(27)).toContain('MatMul');
    expect(table(26)).not.toContain('op');
    expect(table(26)).toContain('encoder.query');
  });

  it('shows no control characters', () => {
    expect(render([{ name: 'a\u001b[31mb\u202e', size: '1' }])[1]).toContain(
      'a\\u001b[31mb\\u202e',
    );
  });
});

it('shortens to the width', () => {
  expect(shorten('short', 16)).toBe('short');
  expect(shorten('abcdefghij', 7)).toBe('…efghij');
  expect(shorten('層層層層層層', 7)).toBe('…層層層');
});

describe('texts', () => {
  it('has numbers as people write them', () => {
    expect([0, 999, 1000, 999_960, 5.3e9].map(bytes)).toEqual([
      ...['0 B', '999 B', '1.0 kB', '1.0 MB', '5.3 GB'],
    ]);
    expect([0.4, 59.6, 125, 3725].map(duration)).toEqual(['0s', '1m 00s', '2m 05s', '1h 02m']);
    expect([0, 1.2345e-7, 0.012345, 12.345, 1e6, Number.NaN].map(measure)).toEqual([
      ...['0', '1.2e-7', '0.0123', '12.3', '1.0e+6', 'NaN'],
    ]);
  });

  it('wraps at words', () => {
    expect(wrap('one two three', 7)).toEqual(['one two', 'three']);
    expect(wrap('unbreakable', 4)).toEqual(['unbreakable']);
  });

  it('leaves ordinary letters alone', () => {
    expect(printable('größe 層 😀')).toBe('größe 層 😀');
  });
});

it('finds what was probably meant', () => {
  const names = ['rank', 'rank-pattern', 'layers', 'force'];
  expect(nearest('rnk', names)).toEqual(['rank']);
  expect(nearest('ran', names)[0]).toBe('rank');
  expect(nearest('zzz', names)).toEqual([]);
});

describe('progress where stderr is no terminal', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
  afterEach(() => void vi.useRealTimers());

  function view() {
    const lines: string[] = [];
    const stream = { isTTY: false, write: (line: string) => lines.push(line) };
    return { lines, progress: progressOn(stream as unknown as NodeJS.WriteStream) };
  }

  const state = (done: number) => ({
    phase: 'writing',
    done,
    total: 100e6,
    unit: 'bytes' as const,
  });

  it('says nothing of short work', () => {
    const { lines, progress } = view();
    progress.update(state(0));
    vi.advanceTimersByTime(1900);
    progress.update(state(100e6));
    expect(lines).toEqual([]);
  });

  it('says a plain line with rate and time left now and then', () => {
    const { lines, progress } = view();
    progress.update(state(0));
    for (let second = 1; second <= 8; second++) {
      vi.advanceTimersByTime(1000);
      progress.update(state(second * 10e6));
    }
    expect(lines).toEqual([
      'writing: 20%, 20.0 MB of 100.0 MB, 10.0 MB/s, 8s left\n',
      'writing: 70%, 70.0 MB of 100.0 MB, 10.0 MB/s, 3s left\n',
    ]);
  });
});

/** The lines of a terminal after what was written to it. */
function screenOf(written: string): string[] {
  const lines = [''];
  let column = 0;
  for (const [part] of written.matchAll(/\p{Cc}(?:\[[0-9;?]*[A-Za-z]|[78])|\n|\r|\P{Cc}+/gu)) {
    const row = lines.length - 1;
    if (part === '\n') column = lines.push('') && 0;
    else if (part === '\r' || part === '\x1b[1G') column = 0;
    else if (part === '\x1b[0K') lines[row] = lines[row]!.slice(0, column);
    else if (part === '\x1b[2K') lines[row] = '';
    else if (part.startsWith('\x1b')) continue;
    else {
      lines[row] = lines[row]!.slice(0, column) + part + lines[row]!.slice(column + part.length);
      column += part.length;
    }
  }
  return lines;
}

describe('progress on a terminal', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
  afterEach(() => void vi.useRealTimers());

  it('leaves the lines beside its bar whole, and nothing when it is over', () => {
    const stream = Object.assign(new PassThrough({ encoding: 'utf8' }), {
      ...{ isTTY: true, columns: 200 },
    });
    const progress = progressOn(stream as unknown as NodeJS.WriteStream);
    const state = (done: number) => ({ phase: 'training', done, total: 9, unit: 'steps' as const });
    const seen: string[] = [];
    for (let done = 0; done < 9; done++) {
      progress.update(state(done));
      vi.advanceTimersByTime(400);
      if (done % 3 === 1) progress.beside(() => stream.write(`note ${done}\n`));
      seen.push(stream.read() ?? '');
    }
    expect(screenOf(seen.slice(0, 3).join(''))).toEqual([
      'note 1',
      expect.stringMatching(/^training █+░+ 22% {2}2 of 9 steps, /),
    ]);
    progress.stop();
    seen.push(stream.read() ?? '');
    expect(screenOf(seen.join(''))).toEqual(['note 1', 'note 4', 'note 7', '']);
  });
});

describe('a text of the library', () => {
  const options = specsOf({ ...seedOption, ...mergeOptions });
  const onCommandLine = (text: string) => spelled(text, options, ['merge', 'eval']);

  it('has the names of options as flags', () => {
    expect(onCommandLine('`seed` has no effect without `evalData`')).toBe(
      '--seed has no effect without `evalData`',
    );
  });

  it('has values of options as they are typed', () => {
    expect(onCommandLine("`provider: 'cpu'`")).toBe('--provider cpu');
    expect(onCommandLine('`scale: 0.5`')).toBe('--scale 0.5');
    expect(onCommandLine('`force: true`')).toBe('--force');
    expect(onCommandLine('`verify: false`')).toBe('--no-verify');
    expect(onCommandLine("`peftPrefix: ['a=b', 'c=']`")).toBe('--peft-prefix a=b --peft-prefix c=');
    expect(onCommandLine('`adapter: PATH, force: true`')).toBe('--adapter PATH --force');
  });

  it('keeps the quotes that a shell needs', () => {
    expect(onCommandLine(`\`output: ${JSON.stringify('my model.onnx')}\``)).toBe(
      '--output "my model.onnx"',
    );
  });

  it('has calls as commands', () => {
    expect(onCommandLine('`merge(model)`')).toBe('onnx-lora merge MODEL');
    expect(onCommandLine("`merge(model, { name: 'one', force: true })`")).toBe(
      'onnx-lora merge MODEL --name one --force',
    );
    expect(onCommandLine('`evaluate(model)`')).toBe('onnx-lora eval MODEL');
  });

  it('keeps what is not an option', () => {
    const others =
      '`toString`, `constructor`, `git lfs pull`, `weight: 1`, `open(file)`, `seed in`';
    expect(onCommandLine(others)).toBe(others);
  });
});
