import type { BaseWeight } from './base-weight.js';
import { Panel, TILE } from './panel.js';
import type { RowFactors } from './row-factors.js';

/** A run of rows of a weight, with ΔW added; valid until the next one. */
export interface Sum {
  /** The first row. */
  readonly start: number;
  readonly panel: Panel;
}

// A panel and what is added to it stay in the processor's caches, and memory stays small.
const PANEL_ELEMENTS = 64 * 1024;

/** `W + ΔW` in float64, a run of rows at a time; ΔW is the sum of all `deltas`. */
export async function* sums(
  weight: BaseWeight,
  deltas: readonly RowFactors[],
): AsyncGenerator<Sum> {
  const { dtype, rows, columns } = weight;
  const most = Math.min(rows, Math.max(TILE, Math.floor(PANEL_ELEMENTS / columns)));
  const panel = new Panel(dtype, columns, most);
  try {
    for (const [start, end] of runs(rows, most, deltas)) {
      panel.load(await weight.readRows(start, end), end - start);
      panel.add(deltas.flatMap((delta) => delta.strips(start, end)));
      yield { start, panel };
    }
  } finally {
    panel.release();
  }
}

/** Runs of at most so many rows that cross no row of blocks of any adapter. */
function* runs(
  rows: number,
  most: number,
  deltas: readonly RowFactors[],
): Generator<[start: number, end: number]> {
  for (let start = 0; start < rows; ) {
    let end = Math.min(rows, start + most);
    for (const delta of deltas) end = Math.min(end, delta.endOfRun(start));
    yield [start, end];
    start = end;
  }
}
