import type { MetricAccumulator } from './metric.js';
import { type Row, rowsOf } from './rows.js';

const DEPTHS = [1, 5, 10];

/**
 * `recall@k`: the share of anchors whose own positive is among the k most similar ones of all batches,
 * by cosine, of embeddings [2B, H] with B anchors before their B positives. Compares every anchor with
 * every positive.
 */
export function retrieval(): MetricAccumulator {
  const [anchors, positives]: [Row[], Row[]] = [[], []];
  return {
    add(embeddings) {
      const rows = Array.from(rowsOf(embeddings), normalized);
      anchors.push(...rows.slice(0, rows.length / 2));
      positives.push(...rows.slice(rows.length / 2));
    },
    result() {
      const ranks = anchors.map((anchor, i) => rankOf(anchor, positives, i));
      const recall = (k: number) => ranks.filter((rank) => rank < k).length / ranks.length;
      return Object.fromEntries(DEPTHS.map((k) => [`recall@${k}`, recall(k)]));
    },
  };
}

/** How many of the others are more similar to the anchor than its own. */
function rankOf(anchor: Row, positives: readonly Row[], own: number): number {
  const limit = dot(anchor, positives[own]!);
  return positives.reduce((rank, other) => rank + Number(dot(anchor, other) > limit), 0);
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
