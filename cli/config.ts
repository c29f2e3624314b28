/** `--config FILE`: options from a JSON file. */
import { readFileSync } from 'node:fs';
import { OnnxLoraError } from '../src/errors.js';
import { fileError } from '../src/onnx/source.js';
import { didYouMean } from '../src/options/near.js';
import { camelCase, kebabCase, type OptionSpecs } from './specs.js';
import { configValues } from './values.js';

// These say how the command line itself is read.
export const notInConfig: ReadonlySet<string> = new Set(['config', 'configSchema', 'help']);

/**
 * The options that a config file sets, by camelCase name.
 * @throws OnnxLoraError `file-not-found`, `invalid-argument` for what is not an option of the command
 */
export function readConfig(path: string, specs: OptionSpecs): Record<string, unknown> {
  const given = new Map<string, unknown>();
  const known = Object.keys(specs).filter((key) => !notInConfig.has(key));
  for (const [written, value] of Object.entries(parseObject(path))) {
    // Editors look there for the schema of the file.
    if (written === '$schema') continue;
    const key = camelCase(written);
    if (!known.includes(key)) throw unknownKey(path, written, known);
    if (given.has(key)) {
      throw invalid(path, `${kebabCase(key)} is set twice`, 'Keep one of its two spellings.');
    }
    given.set(key, value);
  }
  return configValues(given, specs, path);
}

function parseObject(path: string): object {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw fileError(path, error);
  }
  const value = parseJson(path, text.replace(/^\uFEFF/, ''));
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw invalid(path, 'expected a JSON object', 'For example: {"rank": 8, "targets": ["query"]}');
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(path, `not JSON: ${(error as Error).message}`);
  }
}

function unknownKey(path: string, written: string, known: readonly string[]): OnnxLoraError {
  // Whoever writes camelCase should be answered in camelCase.
  const names = written.includes('-') ? known.map(kebabCase) : known;
  const hint = didYouMean(written, names, `It can set: ${names.join(', ')}.`);
  return invalid(path, `${JSON.stringify(written)} is not an option of this command`, hint);
}

function invalid(path: string, problem: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', `${path}: ${problem}`, { hint });
}
