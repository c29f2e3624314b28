/** Expectations of an evaluation, as people write them: `accuracy>=0.9`. */
import { OnnxLoraError } from '../errors.js';

const comparisons = {
  '>=': (found: number, limit: number) => found >= limit,
  '<=': (found: number, limit: number) => found <= limit,
  '>': (found: number, limit: number) => found > limit,
  '<': (found: number, limit: number) => found < limit,
  '==': (found: number, limit: number) => found === limit,
} as const;

/** An expectation, and what came of it. */
export interface Expectation {
  /** Name of the measure: `loss`, `accuracy` and so on. */
  readonly measure: string;
  /** The comparison of `found` with `limit` that is expected. */
  readonly comparison: keyof typeof comparisons;
  /** The number that was asked for. */
  readonly limit: number;
  /** The number that was measured. */
  readonly found: number;
  /** Whether it was reached. */
  readonly passed: boolean;
}

type Wanted = Pick<Expectation, 'measure' | 'comparison' | 'limit'>;

const FORM = /^\s*([^\s<>=]+)\s*(>=|<=|>|<|==)\s*([^\s<>=]+)\s*$/;

/**
 * Reads expectations.
 * @param measures the names that there are
 * @throws OnnxLoraError `invalid-argument` for another form, and for a name that is not in `measures`
 */
export function parseExpectations(
  texts: readonly string[],
  measures: readonly string[],
): readonly Wanted[] {
  return texts.map((text) => {
    const [, measure, comparison, number] = FORM.exec(text) ?? [];
    const limit = Number(number);
    if (measure === undefined || !Number.isFinite(limit)) {
      const found = `${JSON.stringify(text)} is not an expectation`;
      throw invalid(
        `${found}, expected a measure, one of >= <= > < ==, and a number`,
        'For example: accuracy>=0.9',
      );
    }
    if (!measures.includes(measure)) {
      const listed = measures.join(', ');
      throw invalid(`${measure} is not a measure of this loss, which has: ${listed}`);
    }
    return { measure, comparison: comparison as Wanted['comparison'], limit };
  });
}

function invalid(message: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, { hint });
}

/** Compares; a measure that is not a number meets nothing. */
export function checkExpectations(
  wanted: readonly Wanted[],
  measures: Readonly<Record<string, number>>,
): Expectation[] {
  return wanted.map((one) => {
    const found = measures[one.measure] ?? Number.NaN;
    return { ...one, found, passed: comparisons[one.comparison](found, one.limit) };
  });
}
