import { createContext, runInContext } from 'node:vm';
import { OnnxLoraError } from '../../errors.js';
import { show } from '../json.js';
import type { Patterns } from './config.js';

/** A pattern and a path from a file can keep a backtracking matcher busy for years. */
const TIMEOUT_MS = 1000;

/** Nothing that could backtrack: paths and suffixes of them, which most patterns are. */
const PLAIN = /^[\w.-]+$/;

/**
 * The value of the first pattern that matches the end of a module path, as PEFT's `rank_pattern` and
 * `alpha_pattern`: `(.*\.)?(PATTERN)$`.
 * @throws OnnxLoraError `invalid-adapter` for a pattern that is no regular expression, or takes forever
 */
export function patternValue(patterns: Patterns, module: string, path: string): number | undefined {
  return patterns.find(([pattern]) => matches(pattern, module, path))?.[1];
}

function matches(pattern: string, module: string, path: string): boolean {
  // Named groups are spelled with a P in Python.
  const source = `^(?:.*\\.)?(?:${pattern.replaceAll('(?P<', '(?<')})$`;
  if (PLAIN.test(pattern)) return new RegExp(source).test(module);
  const context = createContext({ source, module });
  try {
    return runInContext('new RegExp(source).test(module)', context, { timeout: TIMEOUT_MS });
  } catch (error) {
    throw new OnnxLoraError(
      'invalid-adapter',
      `${path}: the pattern ${show(pattern)} cannot be matched: ${(error as Error).message}`,
      { hint: 'Write the module path or its last segments instead.', cause: error },
    );
  }
}
