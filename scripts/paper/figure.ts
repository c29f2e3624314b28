/** Small plots side by side, as one SVG that reads on light and dark pages. */
import { Markup, markup } from '../../src/report/markup.js';
import { linearScale, roundLinearScale, type Scale } from '../../src/report/scale.js';

export interface Series {
  /** What it is in the legend; the same in every panel. */
  readonly label: string;
  /** A class of the style below. */
  readonly look: string;
  readonly points: readonly SeriesPoint[];
}

export interface SeriesPoint {
  readonly x: number;
  readonly y: number;
  /** Half the length of an error bar. */
  readonly spread?: number;
}

export interface Panel {
  readonly title: string;
  readonly series: readonly Series[];
  /** A horizontal line to compare with. */
  readonly reference?: { readonly label: string; readonly y: number };
}

export interface Figure {
  readonly title: string;
  readonly panels: readonly Panel[];
  readonly columns: number;
  readonly x: Axis;
  readonly y: Axis;
}

export interface Axis {
  readonly label: string;
  readonly text: (value: number) => string;
  /** Default round numbers. */
  readonly ticks?: readonly number[];
  /** Default what the points span. */
  readonly domain?: readonly [number, number];
}

const PANEL = { width: 306, height: 218, left: 68, right: 16, top: 44, bottom: 46 };
const HEADER = 76;

const style = `
svg { color-scheme: light dark; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }
.paper { fill: #fff; } text { fill: #20242c; } .title { font-size: 16px; font-weight: 600; } .name { font-weight: 600; } .soft { fill: #626a78; }
.grid { stroke: #e4e7ec; } .axis { stroke: #b4bac5; } path { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; } .grid, .axis { stroke-width: 1; }
.reference { stroke: #8a92a2; stroke-width: 1.5; stroke-dasharray: 5 4; }
.global { stroke: #20242c; } .diagonal { stroke: #c4560a; }
.localized { stroke: #3050b8; } .localized-2 { stroke: #7c96e0; } .localized-8 { stroke: #16286b; stroke-dasharray: 1 5; stroke-width: 2.5; }
circle { stroke: none; } circle.global { fill: #20242c; } circle.diagonal { fill: #c4560a; } circle.localized { fill: #3050b8; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14161b; } text { fill: #e6e8ec; } .soft { fill: #9aa2b1; } .grid { stroke: #282c34; } .axis { stroke: #4a505c; }
  .reference { stroke: #7d8594; } .global { stroke: #e6e8ec; } .diagonal { stroke: #ffa05c; } .localized { stroke: #8fa8f5; } .localized-2 { stroke: #5a72c4; } .localized-8 { stroke: #d0dbff; }
  circle.global { fill: #e6e8ec; } circle.diagonal { fill: #ffa05c; } circle.localized { fill: #8fa8f5; }
}
`;

/** All panels share their axes. */
export function figureSvg(figure: Figure): string {
  const { title, panels, columns } = figure;
  const rows = Math.ceil(panels.length / columns);
  const width = columns * PANEL.width + 16;
  const height = HEADER + rows * PANEL.height + 8;
  const drawn = panels.map((panel, i) => {
    const [column, row] = [i % columns, Math.floor(i / columns)];
    return panelAt(figure, panel, column * PANEL.width, HEADER + row * PANEL.height);
  });
  return `${
    markup`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${title}</title>
<style>${new Markup(style)}</style>
<rect class="paper" width="${width}" height="${height}" rx="10"/>
<text class="title" x="20" y="30">${title}</text>
${legend(panels)}
${drawn}
</svg>`.text
  }\n`;
}

/** Every series that some panel has, and the reference. */
function legend(panels: readonly Panel[]): Markup[] {
  const looks = new Map(panels.flatMap(({ series }) => series.map((one) => [one.label, one.look])));
  const reference = panels.find((panel) => panel.reference)?.reference;
  if (reference) looks.set(reference.label, 'reference');
  let x = 20;
  return [...looks].map(([label, look]) => {
    const at = x;
    x += 44 + label.length * CHARACTER_WIDTH;
    return markup`<path class="${look}" d="M${at} 54h22"/><text class="soft" x="${at + 29}" y="58">${label}</text>\n`;
  });
}

// Of the font's letters, on average.
const CHARACTER_WIDTH = 6.6;

function panelAt(figure: Figure, panel: Panel, left: number, top: number): Markup {
  const frame = {
    left: left + PANEL.left,
    right: left + PANEL.width - PANEL.right,
    top: top + PANEL.top,
    bottom: top + PANEL.height - PANEL.bottom,
  };
  const points = figure.panels.flatMap(({ series }) => series.flatMap((one) => one.points));
  const ends = points.flatMap(({ y, spread = 0 }) => [y - spread, y + spread]);
  const [x, y] = [
    linearScale(figure.x.domain ?? extent(points.map((p) => p.x)), [frame.left, frame.right], 5),
    roundLinearScale(figure.y.domain ?? extent(ends), [frame.bottom, frame.top], 4),
  ];
  const { reference } = panel;
  return markup`<text class="name" x="${frame.left}" y="${frame.top - 14}">${panel.title}</text>
${y.ticks.map((tick) => markup`<path class="grid" d="M${frame.left} ${round(y.at(tick))}H${frame.right}"/><text class="soft" x="${frame.left - 8}" y="${round(y.at(tick) + 4)}" text-anchor="end">${figure.y.text(tick)}</text>\n`)}
<path class="axis" d="M${frame.left} ${frame.bottom}H${frame.right}"/>
${(figure.x.ticks ?? x.ticks).map((tick) => markup`<path class="axis" d="M${round(x.at(tick))} ${frame.bottom}v4"/><text class="soft" x="${round(x.at(tick))}" y="${frame.bottom + 17}" text-anchor="middle">${figure.x.text(tick)}</text>\n`)}
<text class="soft" x="${(frame.left + frame.right) / 2}" y="${frame.bottom + 34}" text-anchor="middle">${figure.x.label}</text>
<text class="soft" transform="translate(${left + 16} ${(frame.top + frame.bottom) / 2}) rotate(-90)" text-anchor="middle">${figure.y.label}</text>
${reference && markup`<path class="reference" d="M${frame.left} ${round(y.at(reference.y))}H${frame.right}"/>`}
${panel.series.map((series) => seriesIn(series, x, y))}`;
}

function seriesIn({ look, points }: Series, x: Scale, y: Scale): Markup {
  const line = points.map(
    (p, i) => `${i === 0 ? 'M' : 'L'}${round(x.at(p.x))} ${round(y.at(p.y))}`,
  );
  const bars = points.flatMap(({ x: at, y: mean, spread }) =>
    spread === undefined
      ? []
      : [
          markup`<path class="${look}" d="M${round(x.at(at))} ${round(y.at(mean - spread))}V${round(y.at(mean + spread))}"/>
<circle class="${look}" cx="${round(x.at(at))}" cy="${round(y.at(mean))}" r="4"/>\n`,
        ],
  );
  return markup`<path class="${look}" d="${line}"/>\n${bars}`;
}

function extent(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

/** A tenth of a pixel. */
function round(position: number): number {
  return Math.round(position * 10) / 10;
}
