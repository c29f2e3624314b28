/** Integers and a scale for numbers: those with the least sum of squared errors. */

/** The integers that a group of numbers may become. */
export interface CodeRange {
  readonly low: number;
  readonly high: number;
  /** The code of 0: an integer, or between two where zero points are stored as floats. */
  readonly zero: number;
  /** Whether the scale may be below 0: then the end of the range that is farther from 0 is that of any sign. */
  readonly signed: boolean;
}

// Shares of the scale that cuts off nothing. With few integers it pays to cut off the greatest numbers.
const SHARES = [1, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6];

/**
 * The scale for which `Σ (v - scale · (code(v) - zero))²` is least, among some starts that are each
 * improved: codes for a scale, then the best scale for these codes, which is `Σ v·c / Σ c²`.
 * @param known a scale to start from as well
 * @param rounded the nearest number of the type that the scale is stored in
 */
export function bestScale(
  values: Float64Array,
  range: CodeRange,
  known: number,
  rounded: (scale: number) => number,
): number {
  let best = known;
  let least = known === 0 ? Number.POSITIVE_INFINITY : squaredError(values, range, known);
  for (const start of startsFor(values, range)) {
    for (let scale = rounded(start), round = 0; round < 3 && scale !== 0; round++) {
      const error = squaredError(values, range, scale);
      if (error < least) [best, least] = [scale, error];
      scale = rounded(fittedScale(values, range, scale));
    }
  }
  return best;
}

/** The sum of squared errors with the least scale that cuts off nothing. */
export function nearestError(
  values: Float64Array,
  range: CodeRange,
  rounded: (scale: number) => number,
): number {
  const errors = coveringScales(values, range).map((scale) =>
    squaredError(values, range, rounded(scale)),
  );
  return Math.min(...errors);
}

/** The integer that stands for a number. */
export function codeOf(value: number, scale: number, { low, high, zero }: CodeRange): number {
  const code = scale === 0 ? zero : value / scale + zero;
  return Math.min(high, Math.max(low, Math.round(code)));
}

function startsFor(values: Float64Array, range: CodeRange): number[] {
  return coveringScales(values, range).flatMap((scale) => SHARES.map((share) => scale * share));
}

function coveringScales(values: Float64Array, { low, high, zero, signed }: CodeRange): number[] {
  let [least, greatest] = [0, 0];
  for (const value of values) {
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  const covering = (from: number, to: number) =>
    Math.max(high > zero ? to / (high - zero) : 0, low < zero ? from / (low - zero) : 0);
  return [covering(least, greatest), ...(signed ? [-covering(-greatest, -least)] : [])];
}

function squaredError(values: Float64Array, range: CodeRange, scale: number): number {
  let sum = 0;
  for (const value of values) {
    const error = value - scale * (codeOf(value, scale, range) - range.zero);
    sum += error * error;
  }
  return sum;
}

function fittedScale(values: Float64Array, range: CodeRange, scale: number): number {
  let [product, square] = [0, 0];
  for (const value of values) {
    const code = codeOf(value, scale, range) - range.zero;
    product += value * code;
    square += code * code;
  }
  return square === 0 ? 0 : product / square;
}
