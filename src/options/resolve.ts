/** Checks what was given for the options of a table, and fills in the defaults. */
import * as v from 'valibot';
import { OnnxLoraError } from '../errors.js';
import { didYouMean } from './near.js';
import {
  isFlag,
  type Option,
  type OptionsOf,
  type OptionTable,
  type ResolvedOf,
  type Values,
} from './option.js';
import { oneOf, shapeOf } from './schemas.js';

/**
 * @param command what has these options, for messages
 * @throws OnnxLoraError `invalid-argument` naming the first option that is unknown, missing, not what
 * its schema wants, or without effect beside the others
 */
export function resolveOptions<T extends OptionTable>(
  table: T,
  given: OptionsOf<T>,
  command: string,
): ResolvedOf<T> {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    const example = `{ ${Object.keys(table)[0]}: .. }`;
    throw invalid(
      `the options of ${command} are ${shown(given)}, expected an object`,
      `As in: ${example}`,
    );
  }
  const values: Values = given;
  for (const key of Object.keys(values)) {
    if (values[key] !== undefined && !Object.hasOwn(table, key)) throw unknown(key, table, command);
  }
  const own: Record<string, unknown> = {};
  for (const [key, option] of Object.entries(table)) {
    const value = values[key] ?? option.default;
    if (value !== undefined) own[key] = checked(key, option, value);
    else if (option.required) throw missing(key, option, command);
  }
  const resolved = withDefaults(table, own);
  checkEffects(table, values, resolved);
  return resolved as ResolvedOf<T>;
}

/** The options, and the defaults of those that are not given. */
function withDefaults(table: OptionTable, given: Values): Values {
  const resolved: Record<string, unknown> = {};
  for (const [key, option] of Object.entries(table)) {
    const value = given[key] ?? option.default;
    if (value !== undefined) resolved[key] = value;
  }
  for (const [key, { defaultBy }] of Object.entries(table)) {
    const value = defaultBy?.defaults[String(resolved[defaultBy.key])];
    if (value !== undefined) resolved[key] ??= value;
  }
  return resolved;
}

/**
 * @param resolved the same options with their defaults
 * @throws OnnxLoraError `invalid-argument` naming the first option without effect beside the others
 */
function checkEffects(table: OptionTable, given: Values, resolved: Values): void {
  // Rivals first: one that has no effect itself is what is wrong.
  const rivals = new Set(Object.values(table).flatMap(({ notWith }) => notWith ?? []));
  for (const key of new Set([...rivals, ...Object.keys(table)])) {
    const option = table[key];
    if (option && isTold(given[key], option)) checkEffect(key, option, resolved);
  }
}

/** Those of the options that a table has, for a command that is a part of another. */
export function pickOptions<T extends OptionTable>(table: T, options: OptionsOf<T>): OptionsOf<T> {
  const own = Object.entries(options).filter(([key]) => Object.hasOwn(table, key));
  return Object.fromEntries(own) as unknown as OptionsOf<T>;
}

function checked(key: string, { schema }: Option, value: unknown): unknown {
  const { success, output, issues } = v.safeParse(schema, value);
  if (success) return output;
  const { path, input, message } = issues[0];
  const place = (path ?? []).map((step) => `[${step.key}]`).join('');
  const { choices } = shapeOf(schema);
  const hint = choices && typeof input === 'string' ? didYouMean(input, choices) : undefined;
  throw invalid(`\`${key}\`${place} is ${shown(input)}, expected ${message}`, hint);
}

/** A toggle that is set to its default says nothing. */
function isTold(value: unknown, option: Option): boolean {
  return value !== undefined && (typeof value !== 'boolean' || value !== (option.default ?? false));
}

function checkEffect(key: string, option: Option, resolved: Values): void {
  const { needs, only, notWith, except = {}, requires, when } = option;
  const isOn = (other: string) => resolved[other] !== undefined && resolved[other] !== false;
  const isAmong = ([other, values]: readonly [string, readonly string[]]) =>
    values.includes(String(resolved[other]));
  const rival = notWith?.find(isOn);
  if (rival !== undefined) throw idle(key, 'with', [quoted(rival)]);
  const excluded = Object.entries(except).find(isAmong);
  if (excluded) throw idle(key, 'with', [`${quoted(excluded[0])} ${resolved[excluded[0]]}`]);
  if (needs && !needs.some(isOn)) throw idle(key, 'without', needs.map(quoted));
  if (only && !Object.entries(only).some(isAmong)) {
    const wanted = Object.entries(only).map(
      ([other, values]) => `${quoted(other)} ${oneOf(values)}`,
    );
    throw idle(key, 'without', wanted);
  }
  const unmet = when?.find(({ holds }) => !holds(resolved));
  if (unmet) {
    const hint = `Leave it out, or ${unmet.remedy}.`;
    const { otherwise } = unmet;
    const where = typeof otherwise === 'string' ? otherwise : otherwise(resolved);
    throw invalid(`${quoted(key)} has no effect ${where}`, hint);
  }
  const lack = requires?.find((other) => !isOn(other));
  if (lack !== undefined) throw invalid(`${quoted(key)} needs ${quoted(lack)}`, 'Give both.');
}

function idle(key: string, how: 'with' | 'without', others: readonly string[]): OnnxLoraError {
  const what = `${quoted(key)} has no effect ${how} ${oneOf(others)}`;
  const hint =
    how === 'with'
      ? `Leave it out, or leave out ${oneOf(others)}.`
      : `Leave it out, or add ${oneOf(others)}.`;
  return invalid(what, hint);
}

function unknown(key: string, table: OptionTable, command: string): OnnxLoraError {
  const listed = Object.entries(table).filter(([, { isInternal }]) => !isInternal);
  const names = listed.map(([name]) => quoted(name));
  return invalid(
    `unknown option ${quoted(key)} of ${command}`,
    didYouMean(quoted(key), names, `It has: ${names.join(', ')}.`),
  );
}

function missing(key: string, option: Option, command: string): OnnxLoraError {
  const summary = isFlag(option) ? `: ${option.summary}` : '';
  return invalid(`${command} needs ${quoted(key)}${summary}`);
}

function quoted(key: string): string {
  return `\`${key}\``;
}

function shown(value: unknown): string {
  if (value === '') return 'empty';
  return typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
}

function invalid(message: string, hint?: string): OnnxLoraError {
  return new OnnxLoraError('invalid-argument', message, { hint });
}
