import { describe, expect, it } from 'vitest';
import { type LossCurve, lossCurveSvg } from '../../src/report/curve.js';
import { linearScale, logScale, roundLinearScale } from '../../src/report/scale.js';
import { smoothed, spans, thinned } from '../../src/report/series.js';
import { unbalanced } from '../support/markup.js';

const steps = (losses: readonly number[], lr?: number): LossCurve['steps'] =>
  losses.map((loss, i) => ({ step: i + 1, loss, lr }));

const falling = (count: number, scale = 3) =>
  Array.from({ length: count }, (_, i) => scale * 0.99 ** i + 0.1 * Math.sin(i) ** 2);

/** The path of a class; that of the legend comes first. */
function pathOf(svg: string, className: string): string {
  return [...svg.matchAll(new RegExp(`<path class="${className}" d="([^"]*)"`, 'g'))].at(-1)![1]!;
}

/** The heights that a path reaches. */
function heights(path: string): number[] {
  return [...path.matchAll(/[ML][\d.-]+ ([\d.-]+)|V([\d.-]+)/g)].map((m) => Number(m[1] ?? m[2]));
}

/** The labels of an axis, from their place: beside it or below it. */
function labels(svg: string, anchor: 'end' | 'middle'): string[] {
  return [...svg.matchAll(new RegExp(`text-anchor="${anchor}">([^<]*)<`, 'g'))].map((m) => m[1]!);
}

describe('the picture of a run', () => {
  it('is well-formed whatever the title says', () => {
    const curve = { steps: steps(falling(50), 1e-3), evaluations: [{ step: 20, loss: 1 }] };
    const svg = lossCurveSvg(curve, { title: `<script>&"'\u0000</svg>` });
    expect(unbalanced(svg)).toEqual([]);
    expect(svg.replace(/<(\/?)([a-z]+)(?: [a-zA-Z:-]+="[^"<&]*")*(\/?)>/g, '')).not.toMatch(/[<>]/);
    expect(svg).toContain('<title>&lt;script&gt;&amp;&quot;&#39;\ufffd&lt;/svg&gt;</title>');
  });

  it('shows every loss inside its panel, the extremes too', () => {
    const losses = [...falling(100), 17, 0.01, -4];
    const reached = heights(pathOf(lossCurveSvg({ steps: steps(losses) }), 'raw'));
    expect(reached).toHaveLength(2 * losses.length);
    expect(Math.min(...reached)).toBeGreaterThanOrEqual(56);
    expect(Math.max(...reached)).toBeLessThanOrEqual(400 - 44);
  });

  it('leaves a gap where a loss is not finite', () => {
    const losses = falling(60);
    losses[30] = Number.NaN;
    losses[31] = Number.POSITIVE_INFINITY;
    const svg = lossCurveSvg({ steps: steps(losses) });
    expect(pathOf(svg, 'loss').match(/M/g)).toHaveLength(2);
    expect(svg).not.toMatch(/NaN|Infinity/);
  });

  it('shows a run of one step as a dot', () => {
    const svg = lossCurveSvg({ steps: steps([0.5]) });
    expect(svg).toMatch(/<circle class="lone" cx="380"/);
    expect(svg).not.toMatch(/NaN|Infinity/);
  });

  it('says so where nothing can be drawn', () => {
    expect(lossCurveSvg({ steps: steps([Number.NaN]) })).toContain('no step with a finite loss');
    expect(lossCurveSvg({ steps: [] })).toContain('no step with a finite loss');
  });

  it('stays small for many steps, and still reaches their extremes', () => {
    const losses = falling(50_000).map((loss) => loss + 0.5);
    losses[12_345] = 9;
    const svg = lossCurveSvg({ steps: steps(losses) });
    expect(svg.length).toBeLessThan(60_000);
    // 9 of 10, in a panel that is 300 high and starts at 56.
    expect(Math.min(...heights(pathOf(svg, 'raw')))).toBe(86);
  });

  it('has a logarithmic axis where losses span more than two decades', () => {
    const wide = lossCurveSvg({ steps: steps([50, 5, 0.4]) });
    expect(labels(wide, 'end')).toEqual(['0.1', '1', '10', '100']);
    expect(wide).toContain('log scale');
    expect(lossCurveSvg({ steps: steps([50, 5, 0.6]) })).not.toContain('log scale');
    expect(lossCurveSvg({ steps: steps([50, 5, 0]) })).not.toContain('log scale');
  });

  it('has a panel for the learning rate where the steps have one', () => {
    const curve = { steps: steps(falling(10)).map((step, i) => ({ ...step, lr: i * 1e-4 })) };
    expect(labels(lossCurveSvg(curve), 'end')).toContain('learning rate');
    expect(labels(lossCurveSvg({ steps: steps(falling(10)) }), 'end')).not.toContain(
      'learning rate',
    );
  });

  it('marks evaluations and where both lines ended', () => {
    const evaluations = [5, 10].map((step) => ({ step, loss: 2 / step }));
    const svg = lossCurveSvg({ steps: steps([4, 3, 2, 1, 1, 1, 1, 1, 1, 0.25]), evaluations });
    expect(svg.match(/<circle class="mark"/g)).toHaveLength(2);
    expect(svg).toContain('>loss 0.25<');
    expect(svg).toContain('>evaluation 0.2<');
  });
});

describe('axes', () => {
  it('have round labels', () => {
    expect(linearScale([1, 400], [0, 1], 8).ticks).toEqual([50, 100, 150, 200, 250, 300, 350, 400]);
    expect(roundLinearScale([0.13, 0.94], [0, 1], 5).ticks).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
    expect(logScale([0.003, 20], [0, 1], 6).ticks).toEqual([0.001, 0.01, 0.1, 1, 10, 100]);
    expect(logScale([1e-12, 1], [0, 1], 6).ticks).toEqual([
      1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 0.01, 1,
    ]);
  });

  it('put the ends of the domain at the ends of the range', () => {
    const log = logScale([0.01, 100], [300, 0], 5);
    expect([log.at(0.01), log.at(1), log.at(100)]).toEqual([300, 150, 0]);
  });
});

describe('series', () => {
  const line = Array.from({ length: 100 }, (_, i) => ({ x: i, y: 3 * i }));

  it('smoothing keeps a straight line where its windows are centred', () => {
    expect(smoothed(line, 5).slice(0, 95)).toEqual(line.slice(0, 95));
  });

  it('smoothing takes the mean', () => {
    const points = [0, 3, 0, 3, 0].map((y, x) => ({ x, y }));
    expect(smoothed(points, 1).map(({ y }) => y)).toEqual([0, 1, 2, 1, 1.5]);
  });

  it('thinning keeps the ends, spans keep the extremes', () => {
    const few = thinned(line, 12);
    expect(few.length).toBeLessThanOrEqual(13);
    expect([few[0], few.at(-1)]).toEqual([line[0], line[99]]);
    expect(spans(line, 12)).toHaveLength(12);
    expect(spans(line, 12)[1]).toEqual({ x: 9, low: 27, high: 51 });
  });
});
