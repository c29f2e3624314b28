/** An evaluation on a dataset, as a page. */
import { basename } from 'node:path';
import { type Confusion, confusionSection } from './confusion.js';
import { formatCount, formatMeasure, formatSeconds } from './format.js';
import { markup } from './markup.js';
import { fact, page, statistic } from './page.js';

export interface EvaluationReport {
  readonly model: string;
  readonly samples: number;
  readonly seconds: number;
  readonly measures: Readonly<Record<string, number>>;
  readonly expectations: readonly {
    readonly measure: string;
    readonly condition: string;
    readonly passed: boolean;
  }[];
  readonly confusion?: Confusion | undefined;
  readonly classNames?: readonly string[] | undefined;
  /** The settings of the measurement. */
  readonly facts: Readonly<Record<string, string>>;
}

/** The page. Every text in it is escaped. */
export function evaluationPage(report: EvaluationReport): string {
  const { model, samples, seconds, confusion, classNames } = report;
  const facts = { ...report.facts, samples: formatCount(samples), time: formatSeconds(seconds) };
  return page({
    command: 'eval',
    name: basename(model),
    path: model,
    head: markup`<dl class="stats">${statistics(report)}</dl>
<dl class="facts">${Object.entries(facts).map(([name, value]) => fact(name, value))}</dl>`,
    sections: confusion && confusionSection(confusion, classNames),
  });
}

function statistics({ measures, expectations }: EvaluationReport) {
  return Object.entries(measures).map(([name, value]) => {
    const expected = expectations
      .filter(({ measure }) => measure === name)
      .map(({ condition, passed }) => `${condition} ${passed ? 'met' : 'missed'}`);
    return statistic(name, formatMeasure(value), expected.join(', '));
  });
}
