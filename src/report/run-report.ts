/** A training run as a page: how it went, its settings, and what it changed. */
import { basename } from 'node:path';
import { type Confusion, confusionSection } from './confusion.js';
import { type LossCurve, lossCurveSvg } from './curve.js';
import { formatBytes, formatCount, formatMeasure, formatSeconds } from './format.js';
import { heatmaps } from './heatmap.js';
import type { BlockNorms, InspectResult } from './inspection.js';
import { type Markup, markup } from './markup.js';
import { type Evaluation, measuresSection } from './measures.js';
import { fact, page, statistic } from './page.js';
import { type WrittenAt, writingSection } from './writing.js';

export interface RunReport {
  /** The trained model as inspect sees it. */
  readonly inspected: InspectResult;
  readonly blocks: BlockNorms;
  readonly curve: LossCurve;
  readonly evaluations: readonly Evaluation[];
  /** Looks at the model's writing in the course of the run. */
  readonly writing?: readonly WrittenAt[];
  /** The best evaluation, where there was one. */
  readonly best?: { readonly step: number; readonly loss: number } | undefined;
  /** Of the last evaluation of a classifier. */
  readonly confusion?: Confusion | undefined;
  readonly classNames?: readonly string[] | undefined;
  /** Settings of the run, in words. */
  readonly settings: Readonly<Record<string, string>>;
  readonly provider: string;
  readonly seconds: number;
  readonly peakMemoryBytes: number;
}

/** The page. Every text in it is escaped. */
export function runReportPage(report: RunReport): string {
  const { inspected, blocks, confusion, classNames } = report;
  const { path } = inspected.model;
  return page({
    command: 'train',
    name: basename(path),
    path,
    head: statistics(report),
    sections: [
      lossSection(report.curve),
      measuresSection(report.evaluations),
      writingSection(report.writing ?? []),
      confusion && confusionSection(confusion, classNames),
      heatmaps(inspected, blocks),
      settingsSection(report),
    ],
  });
}

function statistics({ curve, best, inspected, seconds, peakMemoryBytes }: RunReport): Markup {
  const [first, last] = [curve.steps[0]?.loss, curve.steps.at(-1)?.loss];
  const { adapterParameters, percent } = inspected.summary;
  const evaluated = best
    ? statistic('Best evaluation', formatMeasure(best.loss), `loss at step ${best.step}`)
    : statistic('Steps', formatCount(curve.steps.at(-1)?.step ?? 0), 'without evaluation');
  return markup`<dl class="stats">
${statistic('Loss', last === undefined ? '–' : formatMeasure(last), first === undefined ? '' : `${formatMeasure(first)} at the first step`)}
${evaluated}
${statistic('Adapter parameters', formatCount(adapterParameters), `${Number(percent.toPrecision(3))}% of all`)}
${statistic('Time', formatSeconds(seconds), `${formatBytes(peakMemoryBytes)} of memory at most`)}
</dl>`;
}

/** As an image: its style sheet and that of the page do not meet. */
function lossSection(curve: LossCurve): Markup {
  const svg = lossCurveSvg(curve, { title: 'Loss', width: 1080, height: 420 });
  const data = Buffer.from(svg).toString('base64');
  return markup`<section><img class="curve" alt="Loss by step" src="data:image/svg+xml;base64,${data}"></section>`;
}

function settingsSection({ settings, provider }: RunReport): Markup {
  const rows = Object.entries(settings).map(([name, value]) => fact(name, value));
  return markup`<section><h2>Settings</h2><dl class="facts">${rows}${fact('provider', provider)}</dl></section>`;
}
