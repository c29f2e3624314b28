/** What a command sees of the terminal. stdout is for results; everything else goes to stderr. */
import pc from 'picocolors';
import type { WorkOptions, WriteOptions } from '../src/onnx/write.js';
import { noProgress, progressOn } from './progress.js';
import { type OptionSpecs, spelled } from './specs.js';
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
  /** Columns of the terminal on stdout; undefined where stdout is none. */
  readonly width: number | undefined;
  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string;
  /** A remark for people, not with `--quiet`. */
  note(text: string): void;
  /** Takes the progress bar away, before something else is printed. */
  stop(): void;
}

interface UiOptions {
  readonly signal: AbortSignal;
  readonly isQuiet: boolean;
  readonly isJson: boolean;
  /** The file that options came from. */
  readonly config: string | undefined;
  /** Of the command, whose names stand in notes. */
  readonly options: OptionSpecs;
}

/** The user interface on this process's streams. */
export function createUi({ signal, isQuiet, isJson, config, options }: UiOptions): Ui {
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
      if (!isQuiet) stderr.write(`${printable(spelled(text, options))}\n`);
    },
    stop: () => progress.stop(),
  };
}

/** Colours where a person looks at the stream and has not asked for none (https://no-color.org). */
export function colorsOf(stream: NodeJS.WriteStream): Colors {
  const { NO_COLOR, TERM } = process.env;
  return pc.createColors(Boolean(stream.isTTY) && !NO_COLOR && TERM !== 'dumb');
}
