import { PAIR } from '../losses/pairs.js';
import type { MetricAccumulator, MetricOptions } from './metric.js';
import { type Row, rowsOf } from './rows.js';

const DEPTHS = [1, 5, 10];

/**
 * `recall@k`: the share of anchors whose own positive is among the k most similar ones of all batches,
 * by cosine, of embeddings [2B, H] with B anchors before their B positives, and B negatives after them in
 * [3B, H]. Compares every anchor with everything else.
 */
export function retrieval({ group = PAIR }: MetricOptions): MetricAccumulator {
  const [anchors, positives, negatives]: [Row[], Row[], Row[]] = [[], [], []];
  return {
    add(embeddings) {
      const rows = Array.from(rowsOf(embeddings), normalized);
      const count = rows.length / group;
      anchors.push(...rows.slice(0, count));
      positives.push(...rows.slice(count, 2 * count));
      negatives.push(...rows.slice(2 * count));
    },
    result() {
      const found = [...positives, ...negatives];
      const ranks = anchors.map((anchor, i) => rankOf(anchor, found, i));
      const recall = (k: number) => ranks.filter((rank) => rank < k).length / ranks.length;
      return Object.fromEntries(DEPTHS.map((k) => [`recall@${k}`, recall(k)]));
    },
  };
}

/** Number of the others that are more similar to the anchor than its own. */
function rankOf(anchor: Row, found: readonly Row[], own: number): number {
  const limit = dot(anchor, found[own]!);
  return found.reduce((rank, other) => rank + Number(dot(anchor, other) > limit), 0);
}

/** A copy: the run's outputs do not outlive it. */
function normalized(row: Row): Row {
  const norm = Math.max(Math.sqrt(dot(row, row)), 1e-12);
  return row.map((value) => value / norm);
}

function dot(a: Row, b: Row): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
