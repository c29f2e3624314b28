/**
 * Which grid and rank each layer gets, so that all of them together capture the most of what changed
 * for a number of parameters. What a fit captures is concave in its rank, so that a greedy choice by
 * captured energy per parameter is the best one, but for the last step that a budget cuts off.
 */

/** One way to fit a layer, at every rank it was measured at. */
export interface Curve {
  /** Parameters of one rank; those of rank r are r times as many. */
  readonly unit: number;
  /** |fit|² by rank, from 0 on. */
  readonly captured: Float64Array;
}

/** A rank on one of a layer's curves; rank 0 for a layer that gets no adapter. */
export interface Choice {
  readonly curve: number;
  readonly rank: number;
  readonly parameters: number;
  readonly captured: number;
}

const NOTHING: Choice = { curve: 0, rank: 0, parameters: 0, captured: 0 };

/** The most that `budget` parameters capture, a choice for each layer. */
export function withinBudget(layers: readonly (readonly Curve[])[], budget: number): Choice[] {
  const greedy = layers.map(() => NOTHING);
  let left = budget;
  for (const { layer, from, to } of steps(layers)) {
    const cost = to.parameters - from.parameters;
    if (greedy[layer] !== from || cost > left) continue;
    greedy[layer] = to;
    left -= cost;
  }
  const plans = [greedy, ...uniformPlans(layers, (plan) => sumOf(plan, 'parameters') <= budget)];
  return best(plans.map((plan) => filledUp(layers, plan, budget)));
}

/** The fewest parameters that capture `target`; undefined where all curves together do not. */
export function withinError(
  layers: readonly (readonly Curve[])[],
  target: number,
): Choice[] | undefined {
  const greedy = layers.map(() => NOTHING);
  let captured = 0;
  for (const { layer, from, to } of steps(layers)) {
    if (captured >= target) break;
    if (greedy[layer] !== from) continue;
    greedy[layer] = to;
    captured += to.captured - from.captured;
  }
  if (captured < target) return undefined;
  const reaches = (plan: readonly Choice[]) => sumOf(plan, 'captured') >= target;
  const plans = [greedy, ...uniformPlans(layers, (plan) => !reaches(plan), 1)].filter(reaches);
  const trimmed = plans.map((plan) => cutDown(layers, plan, target));
  return trimmed.reduce((a, b) => (sumOf(a, 'parameters') <= sumOf(b, 'parameters') ? a : b));
}

/** The choice at equal or fewer parameters on one curve. */
export function choiceWithin(curve: Curve, index: number, parameters: number): Choice {
  const rank = Math.min(curve.captured.length - 1, Math.floor(parameters / curve.unit));
  return choiceAt(curve, index, rank);
}

function choiceAt({ unit, captured }: Curve, curve: number, rank: number): Choice {
  return { curve, rank, parameters: rank * unit, captured: captured[rank]! };
}

function* choicesOf(curves: readonly Curve[]): Generator<Choice> {
  for (const [index, curve] of curves.entries()) {
    for (let rank = 1; rank < curve.captured.length; rank++) yield choiceAt(curve, index, rank);
  }
}

interface Step {
  readonly layer: number;
  readonly from: Choice;
  readonly to: Choice;
}

/** The steps along every layer's hull, the most captured energy per parameter first. */
function steps(layers: readonly (readonly Curve[])[]): Step[] {
  const all = layers.flatMap((curves, layer) => {
    const points = hull(curves);
    return points.slice(1).map((to, i) => ({ layer, from: points[i]!, to }));
  });
  return all.sort((a, b) => slope(b.from, b.to) - slope(a.from, a.to));
}

/** The choices of a layer that no mix of two others beats: the upper convex hull. */
function hull(curves: readonly Curve[]): Choice[] {
  const points = [...choicesOf(curves)].sort(
    (a, b) => a.parameters - b.parameters || b.captured - a.captured,
  );
  const kept: Choice[] = [NOTHING];
  for (const point of points) {
    if (point.captured <= kept.at(-1)!.captured) continue;
    while (kept.length > 1 && slope(kept.at(-2)!, kept.at(-1)!) <= slope(kept.at(-1)!, point)) {
      kept.pop();
    }
    kept.push(point);
  }
  return kept;
}

function slope(from: Choice, to: Choice): number {
  return (to.captured - from.captured) / (to.parameters - from.parameters);
}

/**
 * One curve and one rank for all layers, the largest that `fits` for each curve and `more` beyond it.
 * The greedy choice is to be no worse than any of these, to the last parameter.
 */
function uniformPlans(
  layers: readonly (readonly Curve[])[],
  fits: (plan: readonly Choice[]) => boolean,
  more = 0,
): Choice[][] {
  const widest = Math.max(0, ...layers.map((curves) => curves.length));
  return Array.from({ length: widest }, (_, index) => {
    const plan = (rank: number) =>
      layers.map((curves) => {
        const at = Math.min(index, curves.length - 1);
        const curve = curves[at]!;
        return choiceAt(curve, at, Math.min(rank, curve.captured.length - 1));
      });
    const highest = Math.max(...layers.map((curves) => longest(curves)));
    let rank = 0;
    while (rank < highest && fits(plan(rank + 1))) rank++;
    return plan(rank + more);
  });
}

function longest(curves: readonly Curve[]): number {
  return Math.max(...curves.map(({ captured }) => captured.length - 1));
}

/** Spends what is left of the budget, on the step that captures the most each time. */
function filledUp(
  layers: readonly (readonly Curve[])[],
  plan: readonly Choice[],
  budget: number,
): Choice[] {
  const filled = [...plan];
  let left = budget - sumOf(plan, 'parameters');
  for (;;) {
    let gain = 0;
    let found: { layer: number; to: Choice } | undefined;
    for (const [layer, curves] of layers.entries()) {
      const from = filled[layer]!;
      for (const [index, curve] of curves.entries()) {
        const to = choiceWithin(curve, index, from.parameters + left);
        if (to.captured - from.captured <= gain) continue;
        gain = to.captured - from.captured;
        found = { layer, to };
      }
    }
    if (!found) return filled;
    left -= found.to.parameters - filled[found.layer]!.parameters;
    filled[found.layer] = found.to;
  }
}

/** Takes away what the target does not need, the largest saving first. */
function cutDown(
  layers: readonly (readonly Curve[])[],
  plan: readonly Choice[],
  target: number,
): Choice[] {
  const cut = [...plan];
  let spare = sumOf(plan, 'captured') - target;
  for (;;) {
    let saving = 0;
    let found: { layer: number; to: Choice } | undefined;
    for (const [layer, curves] of layers.entries()) {
      const from = cut[layer]!;
      for (const to of [NOTHING, ...choicesOf(curves)]) {
        const saved = from.parameters - to.parameters;
        if (saved <= saving || from.captured - to.captured > spare) continue;
        saving = saved;
        found = { layer, to };
      }
    }
    if (!found) return cut;
    spare -= cut[found.layer]!.captured - found.to.captured;
    cut[found.layer] = found.to;
  }
}

function best(plans: readonly Choice[][]): Choice[] {
  return plans.reduce((a, b) => (sumOf(a, 'captured') >= sumOf(b, 'captured') ? a : b));
}

function sumOf(plan: readonly Choice[], key: 'parameters' | 'captured'): number {
  return plan.reduce((sum, choice) => sum + choice[key], 0);
}
