/** Aligned columns. */
import stringWidth from 'string-width';
import { printable } from './text.js';

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: 'right';
  /** Gives way, by losing its middle, where the table is wider than the terminal. */
  readonly flexible?: true;
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
  const cells = rows.map((row) => columns.map(({ value }) => printable(value(row))));
  const titles = columns.map(({ title }) => title);
  const widths = fit(columns, naturalWidths([titles, ...cells]), style.width);
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => pad(shorten(text, widths[i]!), widths[i]!, columns[i]!.align))
      .join(GAP)
      .trimEnd();
  return [style.heading(line(titles)), ...cells.map(line)].join('\n');
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
  const total = natural.reduce((sum, width) => sum + width, GAP.length * (natural.length - 1));
  let excess = limit === undefined ? 0 : Math.max(0, total - limit);
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

/** Takes out the middle: a module path says where it is at its start and what it is at its end. */
export function shorten(text: string, width: number): string {
  if (stringWidth(text) <= width) return text;
  const characters = [...text];
  let head = Math.floor((width - 1) / 3);
  let tail = characters.length - (width - 1 - head);
  const cut = () => `${characters.slice(0, head).join('')}…${characters.slice(tail).join('')}`;
  // Wide characters take two columns each.
  while (stringWidth(cut()) > width && (head > 0 || tail < characters.length)) {
    if (tail < characters.length) tail++;
    else head--;
  }
  return cut();
}
