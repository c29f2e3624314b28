/** The terminal as a command sees it. stdout is for results; everything else goes to stderr. */
import pc from 'picocolors';
import type { WorkOptions, WriteOptions } from '../src/onnx/write.js';
import { noProgress, progressOn } from './progress.js';
import type { Spelling } from './spelling.js';
import { type Column, renderTable } from './table.js';
import { printable } from './text.js';

export type Colors = ReturnType<typeof pc.createColors>;

export interface Ui {
  /** For the library's work: Ctrl-C, the progress bar, and the file that options came from. */
  readonly work: Required<WorkOptions> & Pick<WriteOptions, 'alsoRead'>;
  /** Whether stdout is one JSON document: nothing else is written to it. */
  readonly isJson: boolean;
  /** Of stdout. */
  readonly colors: Colors;
  /** Columns of the terminal on stdout; undefined where stdout is not a terminal. */
  readonly width: number | undefined;
  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string;
  /** A remark for people, not with `--quiet`. Options in it have their names in the library. */
  note(text: string): void;
  /** Of options in texts of the library. */
  readonly spelling: Spelling;
  /** Takes the progress bar away, before something else is printed. */
  stop(): void;
}

interface UiOptions {
  readonly signal: AbortSignal;
  readonly isQuiet: boolean;
  readonly isJson: boolean;
  /** The file that options came from. */
  readonly config: string | undefined;
  readonly spelling: Spelling;
}

/** The user interface on this process's streams. */
export function createUi({ signal, isQuiet, isJson, config, spelling }: UiOptions): Ui {
  const { stdout, stderr } = process;
  const colors = colorsOf(stdout);
  const progress = isQuiet ? noProgress : progressOn(stderr);
  const width = stdout.isTTY ? stdout.columns || undefined : undefined;
  const style = { width, heading: colors.bold };
  return {
    work: {
      signal,
      onProgress: (state) => progress.update(state),
      alsoRead: config === undefined ? [] : [config],
    },
    isJson,
    colors,
    width,
    table: (columns, rows) => renderTable(columns, rows, style),
    note: (text) => {
      if (isQuiet) return;
      progress.beside(() => stderr.write(`${printable(spelling(text))}\n`));
    },
    spelling,
    stop: () => progress.stop(),
  };
}

/** Colours where a person looks at the stream and NO_COLOR is not set (https://no-color.org). */
export function colorsOf(stream: NodeJS.WriteStream): Colors {
  const { NO_COLOR, TERM } = process.env;
  return pc.createColors(Boolean(stream.isTTY) && !NO_COLOR && TERM !== 'dumb');
}
