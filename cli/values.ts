/** Makes values of options from typed text or a config file. */
import { OnnxLoraError } from '../src/errors.js';
import { didYouMean } from '../src/options/near.js';
import { oneOf } from '../src/options/schemas.js';
import { kebabCase, type OptionSpec, type OptionSpecs } from './specs.js';

type Scalar = string | number | boolean;

/**
 * Checks the values of options from the command line, where all are strings or booleans.
 * @throws OnnxLoraError `invalid-argument` naming the option
 */
export function typedValues(
  given: ReadonlyMap<string, unknown>,
  specs: OptionSpecs,
): Record<string, unknown> {
  return values(given, specs, (key, spec, raw) => scalar(`--${kebabCase(key)}`, spec, raw, true));
}

/** Checks the values of options from a JSON file: numbers are numbers there, not strings. */
export function configValues(
  given: ReadonlyMap<string, unknown>,
  specs: OptionSpecs,
  file: string,
): Record<string, unknown> {
  return values(given, specs, (key, spec, raw) => scalar(`${file}: ${key}`, spec, raw, false));
}

function values(
  given: ReadonlyMap<string, unknown>,
  specs: OptionSpecs,
  convert: (key: string, spec: OptionSpec, raw: unknown) => Scalar,
): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, raw] of given) {
    const spec = specs[key]!;
    const list = Array.isArray(raw) ? raw : [raw];
    result[key] = spec.repeatable
      ? list.map((one) => convert(key, spec, one))
      : convert(key, spec, raw);
  }
  return result;
}

function scalar(where: string, spec: OptionSpec, raw: unknown, isText: boolean): Scalar {
  switch (spec.type) {
    case 'boolean':
      if (typeof raw === 'boolean') return raw;
      throw wrong(where, raw, isText ? 'no value, or =true or =false' : 'true or false', spec);
    case 'number':
    case 'whole':
      return checkedNumber(where, spec, isText ? parseNumber(raw) : raw, raw);
    default:
      return checkedText(where, spec, raw);
  }
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Stricter than Number(), for which the empty string is 0. */
function parseNumber(raw: unknown): number {
  return typeof raw === 'string' && NUMBER.test(raw.trim()) ? Number(raw) : Number.NaN;
}

function checkedNumber(where: string, spec: OptionSpec, value: unknown, raw: unknown): number {
  const isInteger = spec.type === 'whole';
  const isRight = isInteger ? Number.isSafeInteger(value) : isFloat32(value);
  if (isRight) return value as number;
  const isTooLarge = Number.isFinite(value);
  const expected = isInteger ? 'a whole number' : 'a number';
  throw wrong(where, raw, isTooLarge && !isInteger ? `${expected} up to 3.4e38` : expected, spec);
}

/** Models compute in float32 at most, mostly: beyond its numbers there is only infinity. */
function isFloat32(value: unknown): boolean {
  return typeof value === 'number' && Number.isFinite(Math.fround(value));
}

function checkedText(where: string, spec: OptionSpec, raw: unknown): string {
  const { choices } = spec;
  const article = spec.type === 'path' ? 'a path' : 'a text';
  if (typeof raw !== 'string' || raw === '') throw wrong(where, raw, article, spec);
  if (spec.type === 'path' && raw === '-') {
    throw new OnnxLoraError('invalid-argument', `${where} is -: standard streams are not files`, {
      hint: `Name a file, for example: ${spec.example}`,
    });
  }
  if (choices && !choices.includes(raw)) {
    throw new OnnxLoraError(
      'invalid-argument',
      `${where} is ${shown(raw)}, expected ${oneOf(choices)}`,
      { hint: didYouMean(raw, choices, `For example: ${spec.example}`) },
    );
  }
  return raw;
}

function wrong(where: string, raw: unknown, expected: string, spec: OptionSpec): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', `${where} is ${shown(raw)}, expected ${expected}`, {
    hint: `For example: ${spec.example}`,
  });
}

function shown(raw: unknown): string {
  return raw === '' ? 'empty' : (JSON.stringify(raw) ?? 'missing');
}
