/** The course of a training run as a picture of its own: an SVG that needs no other file. */
import { Markup, markup } from './markup.js';
import { linearScale, logScale, roundLinearScale, type Scale } from './scale.js';
import { finiteRuns, type Point, type Span, smoothed, spans, thinned } from './series.js';

/** The record of a run: the lines of its log. */
export interface LossCurve {
  readonly steps: readonly {
    readonly step: number;
    readonly loss: number;
    readonly lr?: number | undefined;
  }[];
  readonly evaluations?: readonly { readonly step: number; readonly loss: number }[] | undefined;
}

export interface LossCurveOptions {
  readonly title?: string | undefined;
  readonly width?: number | undefined;
  readonly height?: number | undefined;
}

/**
 * Loss against step as an SVG: each step faint, their smoothed course, evaluations, and below it the
 * learning rate. The loss axis is logarithmic where it spans more than two decades. Losses that are not
 * finite leave a gap; where points are closer than pixels, what they span is drawn.
 */
export function lossCurveSvg(curve: LossCurve, options: LossCurveOptions = {}): string {
  const { title = 'Training loss', width = 720, height = 400 } = options;
  const lines = linesOf(curve);
  const frame = frameOf(width, height, lines.rates.length > 0);
  const all = [...lines.losses, ...lines.evaluations].filter(({ y }) => Number.isFinite(y));
  const body =
    all.length > 0
      ? panels(lines, all, frame)
      : markup`<text class="soft" x="${width / 2}" y="${height / 2}" text-anchor="middle">no step with a finite loss</text>`;
  return `${
    markup`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${title}</title>
<style>${new Markup(style)}</style>
<rect class="paper" width="${width}" height="${height}" rx="10"/>
<text class="title" x="${frame.left}" y="31">${title}</text>
${body}
</svg>`.text
  }\n`;
}

// The hues of the inspect page, in hexadecimal: not every viewer of SVG supports oklch.
const style = `
svg { color-scheme: light dark; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }
.paper { fill: #fff; } text { fill: #20242c; } .title { font-size: 16px; font-weight: 600; } .soft { fill: #626a78; }
.grid { stroke: #e4e7ec; } .axis { stroke: #b4bac5; } path { fill: none; stroke-linecap: round; stroke-linejoin: round; }
.raw { stroke: #3f63c8; stroke-width: 3.5; opacity: .28; } .loss { stroke: #3050b8; stroke-width: 2.25; } .lone { fill: #3050b8; }
.eval { stroke: #c4560a; stroke-width: 1.5; } .mark { fill: #c4560a; stroke: #fff; } .rate { stroke: #8a92a2; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14161b; } text { fill: #e6e8ec; } .soft { fill: #9aa2b1; } .grid { stroke: #282c34; } .axis { stroke: #4a505c; }
  .raw { stroke: #8fa8f5; } .loss { stroke: #9db3ff; } .lone { fill: #9db3ff; } .eval { stroke: #ffa05c; } .mark { fill: #ffa05c; stroke: #14161b; } .rate { stroke: #7d8594; }
}
`;

interface Lines {
  readonly losses: readonly Point[];
  readonly evaluations: readonly Point[];
  readonly rates: readonly Point[];
}

function linesOf({ steps, evaluations = [] }: LossCurve): Lines {
  const rated = steps.filter(({ lr }) => lr !== undefined && Number.isFinite(lr));
  return {
    losses: steps.map(({ step, loss }) => ({ x: step, y: loss })),
    evaluations: evaluations.map(({ step, loss }) => ({ x: step, y: loss })),
    rates: rated.map(({ step, lr }) => ({ x: step, y: lr! })),
  };
}

/** Positions of the panels. */
interface Frame {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
  readonly rateTop: number;
  readonly rateBottom: number;
}

const RATE_HEIGHT = 40;
const RATE_GAP = 30;

function frameOf(width: number, height: number, withRate: boolean): Frame {
  const rateBottom = height - 44;
  const rateTop = rateBottom - RATE_HEIGHT;
  const bottom = withRate ? rateTop - RATE_GAP : rateBottom;
  return { left: 64, right: width - 24, top: 56, bottom, rateTop, rateBottom };
}

function panels(lines: Lines, finite: readonly Point[], frame: Frame): Markup {
  const { losses, evaluations, rates } = lines;
  const x = stepScale([...losses, ...evaluations], frame);
  const { scale: y, log } = lossScale(finite, frame);
  return markup`${legend(lines, log, frame)}
${y.ticks.map((tick) => horizontal(tick, y, frame))}
${stepAxis(x, frame)}
${lossLines(losses, x, y, frame)}
${evaluationLine(evaluations, x, y)}
${rates.length > 0 && ratePanel(rates, x, frame)}`;
}

function stepScale(points: readonly Point[], { left, right }: Frame): Scale {
  const [first, last] = extent(points.map((point) => point.x));
  const domain = first === last ? ([first - 1, first + 1] as const) : ([first, last] as const);
  const scale = linearScale(domain, [left, right], 8);
  return { ...scale, ticks: scale.ticks.filter(Number.isInteger) };
}

/** Spans of more than this are drawn on a logarithmic axis. */
const LOG_SPAN = 100;

function lossScale(points: readonly Point[], { top, bottom }: Frame) {
  const [least, most] = extent(points.map((point) => point.y));
  const range = [bottom, top] as const;
  if (least > 0 && most > least * LOG_SPAN) {
    return { scale: logScale([least, most], range, 6), log: true };
  }
  // Zero is worth showing where it is near.
  const from = least > 0 && least < most / 3 ? 0 : least;
  const room = from === most ? Math.abs(most) / 10 || 1 : 0;
  return { scale: roundLinearScale([from - room, most + room], range, 5), log: false };
}

function extent(values: readonly number[]): [number, number] {
  return values.reduce<[number, number]>(
    ([least, most], value) => [Math.min(least, value), Math.max(most, value)],
    [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  );
}

function horizontal(tick: number, y: Scale, { left, right }: Frame): Markup {
  const at = round(y.at(tick));
  return markup`<path class="grid" d="M${left} ${at}H${right}"/><text class="soft" x="${left - 10}" y="${at + 4}" text-anchor="end">${label(tick)}</text>\n`;
}

function stepAxis(x: Scale, { left, right, rateBottom }: Frame): Markup {
  const ticks = x.ticks.map((tick) => {
    const at = round(x.at(tick));
    return markup`<path class="axis" d="M${at} ${rateBottom}v5"/><text class="soft" x="${at}" y="${rateBottom + 19}" text-anchor="middle">${tick.toLocaleString('en-US')}</text>\n`;
  });
  const middle = (left + right) / 2;
  return markup`<path class="axis" d="M${left} ${rateBottom}H${right}"/>
${ticks}<text class="soft" x="${middle}" y="${rateBottom + 35}" text-anchor="middle">step</text>`;
}

/** A smoothed point is the mean of about a twentieth of the run. */
function radiusFor(losses: readonly Point[]): number {
  return Math.round(losses.length / 40);
}

function lossLines(losses: readonly Point[], x: Scale, y: Scale, frame: Frame): Markup {
  const runs = finiteRuns(losses);
  const limit = frame.right - frame.left;
  const radius = radiusFor(losses);
  const raw = runs.flatMap((run) => spans(run, limit)).map((span) => bar(span, x, y));
  const lines = runs.map((run) => polyline(thinned(smoothed(run, radius), limit), x, y));
  return markup`<path class="raw" d="${raw}"/>
<path class="loss" d="${lines}"/>
${runs.filter((run) => run.length === 1).map(([only]) => dot('lone', 3, only!, x, y))}`;
}

function bar({ x: step, low, high }: Span, x: Scale, y: Scale): string {
  return `M${position({ x: step, y: low }, x, y)}V${round(y.at(high))}`;
}

function evaluationLine(evaluations: readonly Point[], x: Scale, y: Scale): Markup {
  const runs = finiteRuns(evaluations);
  return markup`<path class="eval" d="${runs.map((run) => polyline(run, x, y))}"/>
${runs.flat().map((point) => dot('mark', 4, point, x, y))}`;
}

function dot(className: string, radius: number, point: Point, x: Scale, y: Scale): Markup {
  const [cx, cy] = [round(x.at(point.x)), round(y.at(point.y))];
  return markup`<circle class="${className}" cx="${cx}" cy="${cy}" r="${radius}"/>\n`;
}

function ratePanel(rates: readonly Point[], x: Scale, frame: Frame): Markup {
  const { left, right, rateTop, rateBottom } = frame;
  const most = extent(rates.map((point) => point.y))[1];
  const y = linearScale([0, most || 1], [rateBottom, rateTop], 1);
  const limit = right - left;
  return markup`<path class="grid" d="M${left} ${rateTop}H${right}"/>
<text class="soft" x="${left - 10}" y="${rateTop + 4}" text-anchor="end">${label(most)}</text>
<text class="soft" x="${left - 10}" y="${rateBottom + 4}" text-anchor="end">0</text>
<text class="soft" x="${right}" y="${rateTop - 7}" text-anchor="end">learning rate</text>
<path class="rate" d="${polyline(thinned(rates, limit), x, y)}"/>`;
}

/** The legend at the right: each line's name and last value. */
function legend({ losses, evaluations }: Lines, log: boolean, { right }: Frame): Markup {
  const loss = lastOf(finiteRuns(losses).map((run) => smoothed(run, radiusFor(losses))));
  const evaluation = lastOf(finiteRuns(evaluations));
  const entries = [
    evaluation && { line: 'eval', text: `evaluation ${label(evaluation.y)}` },
    loss && { line: 'loss', text: `loss ${label(loss.y)}${log ? ', log scale' : ''}` },
  ];
  let end = right;
  const drawn = entries.map((entry) => {
    if (!entry) return false;
    const from = round(end - entry.text.length * CHARACTER_WIDTH);
    end = from - 48;
    return markup`<path class="${entry.line}" d="M${from - 24} 27h16"/><text class="soft" x="${from}" y="31">${entry.text}</text>\n`;
  });
  return markup`${drawn}`;
}

function lastOf(runs: readonly (readonly Point[])[]): Point | undefined {
  return runs.at(-1)?.at(-1);
}

// Of the font's digits and lower-case letters, on average.
const CHARACTER_WIDTH = 6.4;

function polyline(points: readonly Point[], x: Scale, y: Scale): string {
  return points.map((point, i) => `${i === 0 ? 'M' : 'L'}${position(point, x, y)}`).join('');
}

function position(point: Point, x: Scale, y: Scale): string {
  return `${round(x.at(point.x))} ${round(y.at(point.y))}`;
}

/** A tenth of a pixel. */
function round(position: number): number {
  return Math.round(position * 10) / 10;
}

function label(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return Number(value.toPrecision(2)).toExponential().replace('e+', 'e');
  }
  return Number(value.toPrecision(3)).toLocaleString('en-US', { maximumFractionDigits: 5 });
}
