/** Best fits of known matrices by each structure: the mean over seeds at every rank. */
import { type CurvePoint, errorCurve, type Family, families, labelOf } from './curves.js';
import type { Panel } from './figure.js';
import { makeTarget, type Target } from './targets.js';

export interface FittedTarget {
  readonly name: string;
  readonly recipe: string;
  readonly curves: readonly {
    readonly family: Family;
    readonly points: readonly (CurvePoint & { readonly spread: number })[];
  }[];
}

export const FIT_SEEDS = 5;

/** @param share of the matrix's own parameters at which curves end */
export function fitTargets(targets: readonly Target[], share: number): FittedTarget[] {
  return targets.map((target) => {
    const matrices = Array.from({ length: FIT_SEEDS }, (_, seed) => makeTarget(target, seed));
    const curves = families
      .filter(({ blocks }) => matrices[0]!.rows % blocks === 0)
      .map((family) => ({
        family,
        points: meanCurve(matrices.map((matrix) => errorCurve(matrix, family, share))),
      }))
      .filter(({ points }) => points.length > 1);
    return { name: target.name, recipe: target.recipe, curves };
  });
}

function meanCurve(curves: readonly (readonly CurvePoint[])[]) {
  return curves[0]!.map((point, i) => {
    const errors = curves.map((curve) => curve[i]!.error);
    return { ...point, ...statistics(errors, 'error') };
  });
}

/** The mean under a name, and the standard deviation of one value. */
export function statistics<K extends string>(values: readonly number[], name: K) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const spread = Math.sqrt(squares / Math.max(1, values.length - 1));
  return { [name]: mean, spread } as Record<K | 'spread', number>;
}

const looks: Readonly<Record<string, string>> = {
  'localized K=4': 'localized',
  'localized K=2': 'localized-2',
  'localized K=8': 'localized-8',
  'diagonal K=4': 'diagonal',
  global: 'global',
};

export function panelOf({ name, curves }: FittedTarget): Panel {
  const series = curves.map(({ family, points }) => ({
    label: labelOf(family),
    look: looks[labelOf(family)]!,
    points: points.map(({ share, error }) => ({ x: share, y: error })),
  }));
  return { title: name, series };
}
