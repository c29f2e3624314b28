/** Aligned columns. */
import stringWidth from 'string-width';
import { printable } from './text.js';

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: 'right';
  /** Gives way, by losing its start, where the table is wider than the terminal. */
  readonly flexible?: true;
  /** Goes, the last one first, before anything is cut. */
  readonly optional?: true;
}

export interface TableStyle {
  /** Of the terminal; undefined where the table goes elsewhere and is never cut. */
  readonly width: number | undefined;
  readonly heading: (text: string) => string;
}

const GAP = '  ';

// Shorter than this a module path says nothing any more.
const MIN_FLEXIBLE = 16;

/** The table, a line a row, without a newline at the end. */
export function renderTable<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  style: TableStyle,
): string {
  const shown = withoutSurplus(columns, rows, style.width);
  const [titles, ...cells] = texts(shown, rows);
  const widths = fit(shown, naturalWidths([titles!, ...cells]), style.width);
  const line = (row: readonly string[]) =>
    row
      .map((text, i) => pad(shorten(text, widths[i]!), widths[i]!, shown[i]!.align))
      .join(GAP)
      .trimEnd();
  return [style.heading(line(titles!)), ...cells.map(line)].join('\n');
}

/** The titles, then a line for each row. */
function texts<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string[][] {
  const cells = rows.map((row) => columns.map(({ value }) => printable(value(row))));
  return [columns.map(({ title }) => title), ...cells];
}

/** The columns without those optional ones that there is no room for. */
function withoutSurplus<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  limit = Number.POSITIVE_INFINITY,
): Column<Row>[] {
  const shown = [...columns];
  while (totalWidth(naturalWidths(texts(shown, rows))) > limit) {
    const surplus = shown.findLastIndex(({ optional }) => optional);
    if (surplus < 0) break;
    shown.splice(surplus, 1);
  }
  return shown;
}

function totalWidth(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width, GAP.length * (widths.length - 1));
}

function naturalWidths(lines: readonly (readonly string[])[]): number[] {
  const widths: number[] = [];
  for (const line of lines) {
    line.forEach((text, i) => {
      widths[i] = Math.max(widths[i] ?? 0, stringWidth(text));
    });
  }
  return widths;
}

function fit(
  columns: readonly Column<never>[],
  natural: readonly number[],
  limit: number | undefined,
): number[] {
  let excess = limit === undefined ? 0 : Math.max(0, totalWidth(natural) - limit);
  return natural.map((width, i) => {
    if (!columns[i]!.flexible) return width;
    const cut = Math.min(excess, Math.max(0, width - MIN_FLEXIBLE));
    excess -= cut;
    return width - cut;
  });
}

function pad(text: string, width: number, align: 'right' | undefined): string {
  const space = ' '.repeat(Math.max(0, width - stringWidth(text)));
  return align === 'right' ? space + text : text + space;
}

/** Takes away the start: most of a module path's start is that of its neighbours too. */
export function shorten(text: string, width: number): string {
  if (stringWidth(text) <= width) return text;
  const characters = [...text].slice(1 - width);
  // Wide characters take two columns each.
  while (stringWidth(characters.join('')) > width - 1) characters.shift();
  return `…${characters.join('')}`;
}
