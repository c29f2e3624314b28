/** What the cases of a reader came to, and the table of all. */
import type { Case, Ending } from './case.js';
import type { ReaderName } from './readers/index.js';

/** A bad end, and the first case that had it. */
export interface BadEnd {
  readonly problem: string;
  readonly first: Case;
  count: number;
}

export class Tally {
  cases = 0;
  refused = 0;
  ok = 0;
  slowest = 0;
  /** By what tells one fault from another. */
  readonly bad = new Map<string, BadEnd>();

  constructor(readonly reader: ReaderName) {}

  get badEnds(): number {
    return [...this.bad.values()].reduce((sum, { count }) => sum + count, 0);
  }

  /** @returns whether it is a bad end of a kind that was not seen before */
  add(one: Case, { outcome, problem = '', seconds }: Ending): boolean {
    this.cases++;
    this.slowest = Math.max(this.slowest, seconds);
    if (outcome === 'ok') this.ok++;
    if (outcome === 'refused') this.refused++;
    if (outcome !== 'bad') return false;
    const known = this.bad.get(kindOf(problem));
    if (known) known.count++;
    else this.bad.set(kindOf(problem), { problem, first: one, count: 1 });
    return known === undefined;
  }
}

/** The places in our sources that a stack names, else the message without its numbers. */
function kindOf(problem: string): string {
  const places = [...problem.matchAll(/\/(?:src|cli)\/([\w/.-]+:\d+)/g)].slice(0, 2);
  if (places.length > 0) return places.map((match) => match[1]).join(' < ');
  return problem.split('\n')[0]!.replace(/\d+(\.\d+)?/g, '#');
}

const COLUMNS = ['reader', 'cases', 'refused', 'ok', 'bad ends', 'slowest'] as const;

/** One line a reader, and one for all. */
export function table(tallies: readonly Tally[]): string {
  const rows = tallies.map((tally) => cells(tally.reader, [tally]));
  const all = [[...COLUMNS], ...rows, cells('all', tallies)];
  const widths = COLUMNS.map((_, i) => Math.max(...all.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ');
  return all.map(line).join('\n');
}

function cells(name: string, tallies: readonly Tally[]): string[] {
  const sum = (of: (tally: Tally) => number) => tallies.reduce((total, one) => total + of(one), 0);
  const counts = [
    sum(({ cases }) => cases),
    sum(({ refused }) => refused),
    sum(({ ok }) => ok),
    sum(({ badEnds }) => badEnds),
  ];
  const slowest = Math.max(0, ...tallies.map((tally) => tally.slowest));
  return [name, ...counts.map((count) => count.toLocaleString('en')), `${slowest.toFixed(2)} s`];
}
