/** Long and noisy series made fit to be drawn. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** The stretches of points that no point without a finite number interrupts. */
export function finiteRuns(points: readonly Point[]): Point[][] {
  const runs: Point[][] = [[]];
  for (const point of points) {
    if (Number.isFinite(point.y)) runs.at(-1)!.push(point);
    else if (runs.at(-1)!.length > 0) runs.push([]);
  }
  return runs.filter((run) => run.length > 0);
}

/**
 * Means over windows of up to 2·radius+1 points, centred so that nothing is drawn too late. They are
 * narrower at the start, where losses fall fast, and one-sided at the end, where they hardly move.
 */
export function smoothed(points: readonly Point[], radius: number): Point[] {
  const sums = [0];
  for (const { y } of points) sums.push(sums.at(-1)! + y);
  return points.map(({ x }, i) => {
    const back = Math.min(radius, i);
    const ahead = Math.min(back, points.length - 1 - i);
    return { x, y: (sums[i + ahead + 1]! - sums[i - back]!) / (back + 1 + ahead) };
  });
}

/** The span of neighbouring points. */
export interface Span {
  readonly x: number;
  readonly low: number;
  readonly high: number;
}

/** At most `limit` spans that leave no point out: of a single point each where there are few. */
export function spans(points: readonly Point[], limit: number): Span[] {
  return stretches(points, limit).map((stretch) => {
    const values = stretch.map(({ y }) => y);
    return { x: stretch[0]!.x, low: Math.min(...values), high: Math.max(...values) };
  });
}

/** At most about `limit` of the points, the first and the last among them. */
export function thinned(points: readonly Point[], limit: number): Point[] {
  if (points.length <= limit) return [...points];
  return [points[0]!, ...stretches(points, limit).map((stretch) => stretch.at(-1)!)];
}

function stretches(points: readonly Point[], limit: number): Point[][] {
  const size = Math.ceil(points.length / limit);
  const count = Math.ceil(points.length / size);
  return Array.from({ length: count }, (_, i) => points.slice(i * size, (i + 1) * size));
}
