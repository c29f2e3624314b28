/** Tables of adapters, for every command that lists them. */

import type { AdapterSummary, ParameterShare } from '../src/adapters/kinds/summary.js';
import type { SlotSummary } from '../src/adapters/slots/summary.js';
import type { Skipped } from '../src/commands/chosen-layers.js';
import type { Column } from './table.js';
import { count, measure, percent, plural, printable } from './text.js';
import type { Ui } from './ui.js';

/** `64 x 256` */
export function by([rows, columns]: readonly [number, number]): string {
  return `${rows} x ${columns}`;
}

/** Rank, with the rank of the global part beside the blocks where there is one. */
export function rankText({ rank, hybridRank }: { rank: number; hybridRank: number }): string {
  return hybridRank > 0 ? `${rank}+${hybridRank}` : String(rank);
}

/** Columns that say what an adapter is like. */
export function adapterColumns(total: number, { withNorm = false } = {}): Column<AdapterSummary>[] {
  const norm: Column<AdapterSummary> = {
    title: '|ΔW|',
    value: (adapter) => measure(adapter.norm),
    align: 'right',
  };
  return [
    { title: 'module', value: ({ name }) => name, flexible: true },
    { title: 'in x out', value: ({ shape }) => by(shape), align: 'right' },
    {
      title: 'structure',
      value: ({ kind, structure }) => (kind === 'lora' ? structure : `${kind} ${structure}`),
    },
    { title: 'grid', value: ({ grid }) => by(grid), align: 'right' },
    { title: 'rank', value: rankText, align: 'right' },
    { title: 'params', value: ({ parameters }) => count(parameters), align: 'right' },
    {
      title: 'share',
      value: ({ parameters }) => percent(total === 0 ? 0 : (100 * parameters) / total),
      align: 'right',
    },
    ...(withNorm ? [norm] : []),
  ];
}

/** Columns that say where slots are. */
export function slotColumns(): Column<SlotSummary>[] {
  return [
    { title: 'module', value: ({ name }) => name, flexible: true },
    { title: 'in x out', value: ({ shape }) => by(shape), align: 'right' },
    { title: 'dtype', value: ({ dtype }) => dtype },
  ];
}

/** Tells what of a file the model has no place for. */
export function noteUnmatched(unmatched: readonly string[] | undefined, ui: Ui): void {
  if (!unmatched || unmatched.length === 0) return;
  ui.note(`left out, since the model has no place for ${unmatched.length === 1 ? 'it' : 'them'}:`);
  for (const name of unmatched) ui.note(`  ${name}`);
}

/** A line on the tensors of the model that were replaced, after the other lines. */
export function replacedText(replaced: readonly string[] | undefined, what = 'tensor'): string {
  const { length } = replaced ?? [];
  return length === 0 ? '' : `, ${plural(length, what)} replaced`;
}

/** PEFT's line, as its `print_trainable_parameters` has it. */
export function trainableLine({ trainable, total, percent: share }: ParameterShare): string {
  return `trainable params: ${count(trainable)} || all params: ${count(total)} || trainable%: ${share.toFixed(4)}`;
}

/** Why layers were skipped: each with its reason, or how many there are of each. */
export function skippedLines(skipped: readonly Skipped[], verbose: boolean): string[] {
  if (skipped.length === 0) return [];
  if (verbose) {
    const lines = skipped.map(({ node, reason }) => `  ${printable(`${node}: ${reason}`)}`);
    return [`skipped ${plural(skipped.length, 'node')}:`, ...lines];
  }
  const counts = new Map<string, number>();
  for (const { reason } of skipped)
    counts.set(general(reason), (counts.get(general(reason)) ?? 0) + 1);
  const grouped = [...counts].sort(([, a], [, b]) => b - a);
  const width = count(grouped[0]![1]).length;
  return [
    `skipped ${plural(skipped.length, 'node')} (--verbose lists them):`,
    ...grouped.map(([reason, times]) => `  ${count(times).padStart(width)}  ${printable(reason)}`),
  ];
}

/** A reason without what is special to one node. */
function general(reason: string): string {
  return reason.replace(/^(its weight) \S+/, '$1');
}
