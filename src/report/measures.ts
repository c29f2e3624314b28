/** The measures of a run's evaluations, each as a small curve of its own. */
import { formatMeasure } from './format.js';
import { type Markup, markup } from './markup.js';
import { linearScale } from './scale.js';
import { finiteRuns, type Point } from './series.js';

export interface Evaluation {
  readonly step: number;
  readonly measures: Readonly<Record<string, number>>;
}

/** Nothing for a run without evaluations. */
export function measuresSection(evaluations: readonly Evaluation[]): Markup | undefined {
  const last = evaluations.at(-1);
  if (!last) return undefined;
  const curves = Object.entries(last.measures).map(([name, value]) => {
    const points = evaluations.map(({ step, measures }) => ({
      x: step,
      y: measures[name] ?? Number.NaN,
    }));
    return markup`<figure class="measure"><figcaption>${name}<b>${formatMeasure(value)}</b></figcaption>${curve(points, name)}</figure>\n`;
  });
  return markup`<section><h2>Evaluation</h2>
<p class="intro">The numbers are those of the last evaluation, at step ${last.step}.</p>
<div class="measures">${curves}</div></section>`;
}

const SIZE = { width: 240, height: 72, margin: 6 };

function curve(points: readonly Point[], name: string): Markup {
  const runs = finiteRuns(points);
  const finite = runs.flat();
  if (finite.length < 2) return markup``;
  const { width, height, margin } = SIZE;
  const [x, y] = [
    scale(
      finite.map((point) => point.x),
      [margin, width - margin],
    ),
    scale(
      finite.map((point) => point.y),
      [height - margin, margin],
    ),
  ];
  const at = (point: Point) => `${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`;
  const last = finite.at(-1)!;
  return markup`<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${name} by step">
<path d="${runs.map((run) => `M${run.map(at).join('L')}`).join('')}"/>
<circle cx="${x(last.x).toFixed(1)}" cy="${y(last.y).toFixed(1)}" r="3.5"/></svg>
<div class="ticks"><span>${formatMeasure(Math.min(...finite.map((point) => point.y)))}</span><span>${formatMeasure(Math.max(...finite.map((point) => point.y)))}</span></div>`;
}

/** The position of a number; the middle where all are alike. */
function scale(values: readonly number[], range: readonly [number, number]) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (least === most) return () => (range[0] + range[1]) / 2;
  return linearScale([least, most], range, 2).at;
}
