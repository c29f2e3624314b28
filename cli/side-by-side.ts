/** Two texts for comparison: in columns where there is room, else one after the other. */
import stringWidth from 'string-width';
import { printableText } from './text.js';

export interface TitledText {
  readonly title: string;
  readonly text: string;
}

export interface PageStyle {
  /** Of the terminal; undefined where the text goes elsewhere. */
  readonly width: number | undefined;
  readonly heading: (text: string) => string;
}

const GAP = ' │ ';

/** Narrower columns are hard to read. */
const MIN_COLUMN = 36;

/** The texts under their titles, with a newline at the end. */
export function sideBySide(left: TitledText, right: TitledText, style: PageStyle): string {
  const width = Math.floor(((style.width ?? 0) - GAP.length) / 2);
  if (width < MIN_COLUMN) return [left, right].map((one) => section(one, style)).join('\n');
  const [a, b] = [left, right].map(({ text }) => linesOf(text, width)) as [string[], string[]];
  const titles = [left, right].map(({ title }) => fitted(printableText(title), width));
  const head = titles.map((title) => style.heading(pad(title, width))).join(GAP);
  const rows = Array.from({ length: Math.max(a.length, b.length) }, (_, i) =>
    `${pad(a[i] ?? '', width)}${GAP}${b[i] ?? ''}`.trimEnd(),
  );
  return `${[head, ...rows].join('\n')}\n`;
}

function section({ title, text }: TitledText, { heading }: PageStyle): string {
  return `${heading(printableText(title))}\n${printableText(text)}\n`;
}

/** Lines of at most so many columns, broken at spaces where there are any. */
function linesOf(text: string, width: number): string[] {
  return printableText(text)
    .replaceAll('\t', '    ')
    .split('\n')
    .flatMap((line) => broken(line, width));
}

function broken(line: string, width: number): string[] {
  const lines: string[] = [];
  let rest = line;
  while (stringWidth(rest) > width) {
    const most = fitted(rest, width);
    const space = rest.startsWith(' ', most.length) ? most.length : most.lastIndexOf(' ');
    const end = space > 0 ? space : most.length;
    lines.push(rest.slice(0, end));
    rest = rest.slice(end).trimStart();
  }
  return [...lines, rest];
}

/** The beginning that fits. */
function fitted(text: string, width: number): string {
  let [end, used] = [0, 0];
  for (const character of text) {
    used += stringWidth(character);
    if (used > width) break;
    end += character.length;
  }
  return text.slice(0, Math.max(end, 1));
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - stringWidth(text)));
}
