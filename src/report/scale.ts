/** Axes: the position of a number, and which numbers get a label. */

/** A map from numbers to positions, with labelled numbers inside its domain. */
export interface Scale {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
}

type Interval = readonly [from: number, to: number];

/** Even steps. The domain is kept as it is; ticks are about `count` round numbers in it. */
export function linearScale(domain: Interval, range: Interval, count: number): Scale {
  const [from, to] = domain;
  const step = roundStep((to - from) / count);
  return { at: linear(domain, range), ticks: multiples(step, from, to) };
}

/** Even steps, over a domain that is widened to end in ticks. */
export function roundLinearScale([from, to]: Interval, range: Interval, count: number): Scale {
  const step = roundStep((to - from) / count);
  const wide: Interval = [
    step * Math.floor(from / step + ALMOST),
    step * Math.ceil(to / step - ALMOST),
  ];
  return { at: linear(wide, range), ticks: multiples(step, ...wide) };
}

/** Powers of ten at even distances, over a domain that is widened to end in them. */
export function logScale([from, to]: Interval, range: Interval, count: number): Scale {
  const first = Math.floor(Math.log10(from) + ALMOST);
  const last = Math.max(first + 1, Math.ceil(Math.log10(to) - ALMOST));
  const position = linear([first, last], range);
  const step = Math.ceil((last - first) / count);
  return {
    at: (value) => position(Math.log10(value)),
    ticks: multiples(step, first, last).map((power) => Number(`1e${power}`)),
  };
}

// Rounding errors may add this to a whole number of steps.
const ALMOST = 1e-9;

/** The least of 1, 2 and 5 times a power of ten that is not below `least`. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least * (1 - ALMOST))!;
}

function multiples(step: number, from: number, to: number): number[] {
  const first = Math.ceil(from / step - ALMOST);
  const count = Math.floor(to / step + ALMOST) - first + 1;
  // 3 * 0.1 is 0.3
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function linear([from, to]: Interval, [start, end]: Interval): Scale['at'] {
  return (value) => start + ((value - from) / (to - from)) * (end - start);
}
