/** Schemas of values. The message of each says what was expected, after "expected". */
import * as v from 'valibot';
import type { Schema } from './option.js';

/** `a, b or c` */
export function oneOf(names: readonly string[]): string {
  return names.length < 2 ? names.join() : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}

/** On or off; a flag without a value. */
export const toggle: v.GenericSchema<boolean> = v.boolean('true or false');

export const text: v.GenericSchema<string> = v.pipe(v.string('a text'), v.nonEmpty('a text'));

/** Of a file or a folder. */
export const path: v.GenericSchema<string> = v.pipe(
  v.string('a path'),
  v.nonEmpty('a path'),
  v.metadata({ isPath: true }),
);

/** One of some names. */
export function choice<const N extends readonly string[]>(names: N): v.GenericSchema<N[number]> {
  return v.picklist(names, oneOf(names));
}

/** A whole number, from `least` to `most` where there are limits. */
export function whole(least = LEAST, most = MOST): v.GenericSchema<number> {
  const from = least === LEAST ? '' : ` from ${least}`;
  const to = most === MOST ? (from ? ' on' : '') : ` to ${most}`;
  const expected = `a whole number${from}${to}`;
  return v.pipe(
    v.number(expected),
    v.safeInteger(expected),
    v.minValue(least, expected),
    v.maxValue(most, expected),
  );
}

const LEAST = Number.MIN_SAFE_INTEGER;
const MOST = Number.MAX_SAFE_INTEGER;

/** A number that float32 holds, in which models compute mostly: beyond it there is only infinity. */
export const number: v.GenericSchema<number> = v.pipe(
  v.number('a number up to 3.4e38'),
  v.check((value) => Number.isFinite(Math.fround(value)), 'a number up to 3.4e38'),
);

/** Zero or more. */
export const notNegative: v.GenericSchema<number> = v.pipe(number, v.minValue(0, '0 or more'));

/** More than zero, in float32 too. */
export const positive: v.GenericSchema<number> = v.pipe(
  number,
  v.check((value) => Math.fround(value) > 0, 'a number above 0'),
);

/** A part of a whole, less than all of it. */
export const share: v.GenericSchema<number> = v.pipe(
  number,
  v.minValue(0, 'a share from 0 to below 1'),
  v.ltValue(1, 'a share from 0 to below 1'),
);

/** A part of a whole, or all of it. */
export const part: v.GenericSchema<number> = v.pipe(
  number,
  v.gtValue(0, 'a share above 0, at most 1'),
  v.maxValue(1, 'a share above 0, at most 1'),
);

/** Several values; the flag is repeated. */
export function list<T>(item: v.GenericSchema<T>, least = 1): v.GenericSchema<readonly T[]> {
  return v.pipe(v.array(item, 'a list'), v.minLength(least, 'one or more'));
}

/** So many values; they follow the flag. */
export function pair<T>(item: v.GenericSchema<T>): v.GenericSchema<readonly [T, T]> {
  return v.strictTuple([item, item], 'two values');
}

/** A value of one of two kinds; the command line knows the first. */
export function union<A, B>(
  kinds: readonly [v.GenericSchema<A>, v.GenericSchema<B>],
  expected: string,
): v.GenericSchema<A | B> {
  return v.union(kinds, expected);
}

/** A function of the program that calls. */
export function callback<F extends (...args: never) => unknown>(): v.GenericSchema<F> {
  return v.custom<F>((value) => typeof value === 'function', 'a function');
}

/** An object of a class. */
export function instance<T>(of: new () => T, expected: string): v.GenericSchema<T> {
  return v.instance(of, expected);
}

/** An object of the program that calls, which is checked where it is used. */
export function object<T extends object>(expected: string): v.GenericSchema<T> {
  return v.custom<T>((value) => typeof value === 'object' && value !== null, expected);
}

/** The kind of a value, as the command line and a JSON schema need it. */
export interface Shape {
  readonly kind: 'boolean' | 'text' | 'path' | 'whole' | 'number' | 'other';
  readonly choices?: readonly string[];
  /** Of a list, or of so many values. */
  readonly many?: true | number;
}

/** A schema as valibot keeps it. */
interface Parts {
  readonly type: string;
  readonly pipe?: readonly Parts[];
  readonly item?: Parts;
  readonly items?: readonly Parts[];
  readonly options?: readonly unknown[];
}

/** The shape of the values of a schema; where it allows several, of the first. */
export function shapeOf(schema: Schema): Shape {
  return shapeOfParts(schema as Parts);
}

function shapeOfParts({ type, pipe = [], item, items, options }: Parts): Shape {
  const has = (kind: string) => pipe.some((part) => part.type === kind);
  switch (type) {
    case 'array':
      return { ...shapeOfParts(item!), many: true };
    case 'tuple':
    case 'strict_tuple':
      return { ...shapeOfParts(items![0]!), many: items!.length };
    case 'union':
      return shapeOfParts(options![0] as Parts);
    case 'picklist':
      return { kind: 'text', choices: options as readonly string[] };
    case 'string':
      return { kind: has('metadata') ? 'path' : 'text' };
    case 'number':
      return { kind: pipe.some(isWhole) ? 'whole' : 'number' };
    case 'boolean':
      return { kind: 'boolean' };
    default:
      return { kind: 'other' };
  }
}

// A pipe may begin with a pipe.
function isWhole({ type, pipe }: Parts): boolean {
  return type === 'safe_integer' || (pipe?.some(isWhole) ?? false);
}
