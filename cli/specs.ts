/** Specs of options for the parser and the help, from the tables that describe them. */
import {
  type Flag,
  type Group,
  isFlag,
  lastGroups,
  type OptionTable,
  type OptionTexts,
} from '../src/options/option.js';
import { oneOf, type Shape, shapeOf } from '../src/options/schemas.js';

export interface OptionSpec extends OptionTexts {
  readonly type: Exclude<Shape['kind'], 'other'>;
  readonly choices?: readonly string[] | undefined;
  /** As the help says it. */
  readonly default?: string | undefined;
  /** `with --data`: where it has an effect, as the help says it. */
  readonly condition?: string | undefined;
  readonly repeatable: boolean;
  /** Number of values that follow the option, where it is not one; then it is repeatable. */
  readonly values?: number | undefined;
  readonly required: boolean;
  /** On unless `--no-…` is given; the help lists it that way. */
  readonly onByDefault: boolean;
}

/** By the name in the library, camelCase; the command line has it in kebab-case. */
export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

/** The headings of some options, in their order, with those that are always last. */
export function groupsOf(specs: OptionSpecs): readonly Group[] {
  const all = new Set(Object.values(specs).map(({ group }) => group));
  const last = lastGroups.filter((group) => all.has(group));
  for (const group of last) all.delete(group);
  return [...all, ...last];
}

/** The options of a table that have a flag. */
export function specsOf(table: OptionTable): OptionSpecs {
  const flags = Object.entries(table).flatMap(([key, option]) =>
    isFlag(option) ? [[key, specOf(key, option, table)] as const] : [],
  );
  return Object.fromEntries(flags);
}

function specOf(key: string, flag: Flag, table: OptionTable): OptionSpec {
  const { kind, choices, many } = shapeOf(flag.schema);
  if (kind === 'other') throw new Error(`no flag can be made of ${key}`);
  const { group, summary, example, value, short, implied, list } = flag;
  return {
    ...{ group, summary, example, value, short, implied, list },
    type: kind,
    choices,
    default: flag.defaultText ?? defaultText(flag.default) ?? defaultsText(flag, table),
    condition: conditionOf(flag, table),
    repeatable: many !== undefined,
    values: many === true ? undefined : many,
    required: flag.required ?? false,
    onByDefault: flag.default === true,
  };
}

function defaultText(value: unknown): string | undefined {
  if (value === undefined || typeof value === 'boolean') return undefined;
  return [value].flat().join(' ');
}

/** `0.0005, for lion 0.0001`: that of the choice made where none is given, then the others. */
function defaultsText({ defaultBy }: Flag, table: OptionTable): string | undefined {
  if (defaultBy === undefined) return undefined;
  const { key, defaults } = defaultBy;
  const texts = Object.entries(defaults).flatMap(([name, value]) => {
    const text = defaultText(value);
    return text === undefined ? [] : [[name, text] as const];
  });
  const chosen = texts.find(([name]) => name === table[key]?.default);
  const usual = (chosen ?? texts[0])?.[1];
  const others = texts.filter(([, text]) => text !== usual);
  return usual && [usual, ...others.map(([name, text]) => `for ${name} ${text}`)].join(', ');
}

function isOn(key: string, table: OptionTable): boolean {
  return table[key]?.default === true;
}

/** `with --data`, or of what is on by default `not with --no-verify`. */
function conditionOf(
  { needs = [], only, when = [] }: Flag,
  table: OptionTable,
): string | undefined {
  const choices = Object.entries(only ?? {}).map(
    ([key, values]) => `${long(key)} ${oneOf(values)}`,
  );
  const others = [...choices, ...needs.filter((key) => !isOn(key, table)).map((key) => long(key))];
  const off = needs.filter((key) => isOn(key, table)).map((key) => long(key, 'no-'));
  const rule = [
    ...(off.length > 0 ? [`not with ${oneOf(off)}`] : []),
    ...(others.length > 0 ? [`${off.length > 0 ? 'without' : 'with'} ${oneOf(others)}`] : []),
  ].join(' ');
  const texts = [rule, ...when.map(({ text }) => text)].filter(Boolean);
  return texts.length > 0 ? texts.join('; ') : undefined;
}

/** `rankPattern` -> `--rank-pattern` */
export function long(key: string, negation: 'no-' | '' = ''): string {
  return `--${negation}${kebabCase(key)}`;
}

/** `rankPattern` -> `rank-pattern` */
export function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `rank-pattern` -> `rankPattern` */
export function camelCase(name: string): string {
  return name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
