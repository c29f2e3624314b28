import { OnnxLoraError } from '../../errors.js';
import { TimeLimit, withinTime } from '../../time-limit.js';
import { show } from '../json.js';
import type { Patterns } from './config.js';

/**
 * For all modules of an adapter together. Some thousand patterns and modules take a second; a pattern and
 * a path from a file can keep a backtracking matcher busy for years.
 */
const MATCHING_MS = 2000;

/** Nothing that could backtrack: paths and suffixes of them, which most patterns are. */
const PLAIN = /^[\w.-]+$/;

/** So many plain ones take no time that is worth a watch. */
const FEW = 1000;

interface Compiled {
  readonly regexes: readonly (readonly [regex: RegExp, value: number])[];
  /** Whether no time limit is needed. */
  readonly isPlain: boolean;
  /** Milliseconds that are left. */
  rest: number;
}

const compiled = new WeakMap<Patterns, Compiled>();

/**
 * The value of the first pattern that matches the end of a module path, as PEFT's `rank_pattern` and
 * `alpha_pattern`: `(.*\.)?(PATTERN)$`.
 * @throws OnnxLoraError `invalid-adapter` for a pattern that is not a regular expression, or patterns that take
 * forever
 */
export function patternValue(patterns: Patterns, module: string, path: string): number | undefined {
  if (patterns.length === 0) return undefined;
  const known = compiled.get(patterns) ?? compile(patterns, path);
  const start = performance.now();
  let at = 0;
  const find = () => {
    for (at = 0; at < patterns.length; at++) {
      const [regex, value] = known.regexes[at]!;
      if (regex.test(module)) return value;
    }
    return undefined;
  };
  try {
    return known.isPlain ? find() : withinTime(Math.ceil(known.rest), find);
  } catch (error) {
    if (!(error instanceof TimeLimit)) throw error;
    throw cannotMatch(patterns[at]![0], new TimeLimit(MATCHING_MS), path);
  } finally {
    known.rest = Math.max(1, known.rest - (performance.now() - start));
  }
}

function compile(patterns: Patterns, path: string): Compiled {
  const made: Compiled = {
    regexes: patterns.map(([pattern, value]) => [regexOf(pattern, path), value]),
    isPlain: patterns.length <= FEW && patterns.every(([pattern]) => PLAIN.test(pattern)),
    rest: MATCHING_MS,
  };
  compiled.set(patterns, made);
  return made;
}

function regexOf(pattern: string, path: string): RegExp {
  try {
    // Named groups are spelled with a P in Python.
    return new RegExp(`^(?:.*\\.)?(?:${pattern.replaceAll('(?P<', '(?<')})$`);
  } catch (error) {
    throw cannotMatch(pattern, error, path);
  }
}

function cannotMatch(pattern: string, error: unknown, path: string): OnnxLoraError {
  return new OnnxLoraError(
    'invalid-adapter',
    `${path}: the pattern ${show(pattern)} cannot be matched: ${(error as Error).message}`,
    { hint: 'Write the module path or its last segments instead.', cause: error },
  );
}
