/** What the numbers say, in words and tables. Every statement here is computed. */
import {
  ADVICE_RANK,
  type Adaptation,
  BLOCKS,
  learningRates,
  type Outcome,
  ranks,
  seeds,
  structures,
} from './adaptation.js';
import { labelOf } from './curves.js';
import type { Panel } from './figure.js';
import { type FittedTarget, statistics } from './fits.js';

/** Fits are compared in words and tables at this rank. */
const RANK = 16;
/** Two errors that differ by less than this share are a draw. */
const DRAW = 0.01;

export function fitTable(targets: readonly FittedTarget[], rank = RANK): string {
  const labels = [
    ...new Set(targets.flatMap(({ curves }) => curves.map((c) => labelOf(c.family)))),
  ];
  const rows = targets.map((target) => {
    const best = Math.min(...errorsAt(target, rank).values());
    const cells = labels.map((label) => {
      const point = target.curves
        .find(({ family }) => labelOf(family) === label)
        ?.points.find((one) => one.rank === rank);
      if (!point) return '';
      const text = `${point.error.toFixed(3)} ± ${point.spread.toFixed(3)}`;
      return isDraw(point.error, best) ? `**${text}**` : text;
    });
    return `| ${[target.name, target.recipe, ...cells].join(' | ')} |`;
  });
  const rule = ['', '---', '---', ...labels.map(() => '--:'), ''].join('|');
  return [`| ΔW | made of | ${labels.join(' | ')} |`, rule, ...rows].join('\n');
}

function errorsAt({ curves }: FittedTarget, rank: number): Map<string, number> {
  return new Map(
    curves.flatMap(({ family, points }) => {
      const point = points.find((one) => one.rank === rank);
      return point ? [[labelOf(family), point.error] as const] : [];
    }),
  );
}

function isDraw(error: number, best: number): boolean {
  return error <= best * (1 + DRAW) + 1e-6;
}

/** Who wins where, at the rank of the table and over all ranks. */
export function fitFindings(targets: readonly FittedTarget[], rank = RANK): string {
  const verdicts = targets.map((target) => {
    const errors = errorsAt(target, rank);
    const best = Math.min(...errors.values());
    const winners = [...errors].filter(([, error]) => isDraw(error, best)).map(([label]) => label);
    return `- **${target.name}**: ${winners.join(', ')} (error ${best.toFixed(3)})${alongRanks(target)}`;
  });
  return [
    `Lowest error at R = ${rank}, draws within ${DRAW * 100} % together:`,
    '',
    ...verdicts,
  ].join('\n');
}

/** How often plain LoRA and the paper's grid are ahead, over all ranks that both have. */
function alongRanks(target: FittedTarget): string {
  const global = target.curves.find(({ family }) => family.structure === 'global');
  const localized = target.curves.find(({ family }) => labelOf(family) === `localized K=${BLOCKS}`);
  if (!global || !localized) return '';
  const both = localized.points.flatMap((point) => {
    const other = global.points.find(({ rank }) => rank === point.rank);
    return other ? [[point.error, other.error] as const] : [];
  });
  const ahead = both.filter(([own, other]) => own < other - DRAW * other - 1e-6).length;
  const behind = both.filter(([own, other]) => other < own - DRAW * own - 1e-6).length;
  const of = `of ${both.length} ranks`;
  return `; localized K=${BLOCKS} beats global at ${ahead}, loses at ${behind} ${of}`;
}

export function adaptationTable({ outcomes, classifier }: Adaptation): string {
  const rows = ['full', ...structures].flatMap((method) =>
    [0, ...ranks].flatMap((rank) => {
      const own = outcomes.filter((one) => one.method === method && one.rank === rank);
      return own.length > 0 ? [rowOf(own)] : [];
    }),
  );
  return [
    `| ${classifier} | R | parameters | test accuracy | test loss | learning rates |`,
    '|---|--:|--:|--:|--:|---|',
    ...rows,
  ].join('\n');
}

function rowOf(own: readonly Outcome[]): string {
  const [{ method, rank, parameters }] = own as [Outcome];
  const accuracy = statistics(
    own.map((one) => 100 * one.accuracy),
    'mean',
  );
  const loss = statistics(
    own.map((one) => one.loss),
    'mean',
  );
  const cells = [
    ...[method === 'full' ? 'all weights' : method, method === 'full' ? '' : rank],
    parameters.toLocaleString('en-US'),
    `${accuracy.mean.toFixed(1)} ± ${accuracy.spread.toFixed(1)} %`,
    `${loss.mean.toFixed(3)} ± ${loss.spread.toFixed(3)}`,
    [...new Set(own.map(({ lr }) => lr))].sort((a, b) => a - b).join(', '),
  ];
  return `| ${cells.join(' | ')} |`;
}

/** Paired by seed: how much better localized is than the others. */
export function adaptationFindings(adaptation: Adaptation): string {
  const lines = ranks.flatMap((rank) =>
    (['global', 'diagonal'] as const).map((other) => {
      const differences = seeds.map(
        (seed) =>
          100 *
          (accuracyOf(adaptation, 'localized', rank, seed) -
            accuracyOf(adaptation, other, rank, seed)),
      );
      const { mean, spread } = statistics(differences, 'mean');
      const wins = differences.filter((difference) => difference > 0).length;
      return `- R = ${rank}: localized minus ${other} ${signed(mean)} ± ${spread.toFixed(1)} points, ahead in ${wins} of ${seeds.length} seeds`;
    }),
  );
  return [`**${adaptation.classifier}**, paired by seed:`, '', ...lines].join('\n');
}

function accuracyOf({ outcomes }: Adaptation, method: string, rank: number, seed: number): number {
  return outcomes.find((one) => one.method === method && one.rank === rank && one.seed === seed)!
    .accuracy;
}

/** The highest learning rate may have been too low. */
export function atTheEdge(adaptations: readonly Adaptation[]): string {
  const highest = Math.max(...learningRates);
  const all = adaptations.flatMap(({ outcomes }) => outcomes);
  const count = all.filter(({ lr }) => lr === highest).length;
  return `${highest}, the highest, was chosen in ${count} of ${all.length} runs, which might do better with a higher one`;
}

/** The two beside each other: what shares promise, and what training gave. */
export function adviceFindings(adaptations: readonly Adaptation[]): string {
  const lines = adaptations.flatMap((adaptation) =>
    (['localized', 'diagonal'] as const).map((structure) => adviceFinding(adaptation, structure)),
  );
  return lines.join('\n');
}

function adviceFinding(adaptation: Adaptation, structure: 'localized' | 'diagonal'): string {
  const mean = (values: readonly number[]) => signed(100 * statistics(values, 'mean').mean);
  const gain = (basis: 'gradient' | 'tuned') =>
    mean(adaptation.advice.map((one) => one[basis][structure] - one[basis].global));
  const accuracy = seeds.map(
    (seed) =>
      accuracyOf(adaptation, structure, ADVICE_RANK, seed) -
      accuracyOf(adaptation, 'global', ADVICE_RANK, seed),
  );
  return `- **${adaptation.classifier}**, ${structure} minus global: ${gain('gradient')} points of the gradient, ${gain('tuned')} of the full change, ${mean(accuracy)} of test accuracy`;
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(1)}`;
}

export function adviceTable(adaptations: readonly Adaptation[]): string {
  const rows = adaptations.flatMap(({ classifier, advice }) =>
    (['gradient', 'tuned'] as const).map((basis) => {
      const shares = structures.map((name) => {
        const { mean, spread } = statistics(
          advice.map((one) => 100 * one[basis][name]),
          'mean',
        );
        return `${mean.toFixed(1)} ± ${spread.toFixed(1)} %`;
      });
      const what =
        basis === 'gradient' ? 'the gradient before training' : 'what full training changed';
      return `| ${[classifier, what, ...shares].join(' | ')} |`;
    }),
  );
  return [`| | captured of | ${structures.join(' | ')} |`, '|---|---|--:|--:|--:|', ...rows].join(
    '\n',
  );
}

export function adaptationPanel({ classifier, outcomes }: Adaptation): Panel {
  const full = outcomes.filter(({ method }) => method === 'full');
  return {
    title: classifier,
    reference: {
      label: 'all weights trained',
      y: statistics(
        full.map(({ accuracy }) => accuracy),
        'mean',
      ).mean,
    },
    series: structures.map((method, i) => ({
      label: method,
      look: method,
      points: ranks.map((rank) => {
        const own = outcomes.filter((one) => one.method === method && one.rank === rank);
        const { mean, spread } = statistics(
          own.map(({ accuracy }) => accuracy),
          'mean',
        );
        // Beside each other, so that bars do not hide each other.
        return { x: rank + (i - 1) * 0.2, y: mean, spread };
      }),
    })),
  };
}
