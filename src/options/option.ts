/**
 * Options as data. What a command takes is described once: the types of its options, their check, their
 * defaults, the flags of the command line, its help and the schema of its config files come from that.
 */
import type * as v from 'valibot';

/** Headings of the help that every command has at its end, in this order. */
export const lastGroups = ['Check', 'Output', 'General'] as const;

/** Headings of the help. Those before the last ones are in the order of a command's table. */
export type Group =
  | 'Prompt'
  | 'Sampling'
  | 'Data'
  | 'Images'
  | 'Loss'
  | 'Layers'
  | 'Adapters'
  | 'Training'
  | 'Optimizer'
  | 'Evaluation'
  | 'Checkpoints'
  | (typeof lastGroups)[number];

export type Schema = v.BaseSchema<unknown, unknown, v.BaseIssue<unknown>>;

/** Texts of the help. */
export interface OptionTexts {
  readonly group: Group;
  readonly summary: string;
  /** As typed on the command line. */
  readonly example: string;
  /** Stands for the value in the help. */
  readonly value?: string | undefined;
  readonly short?: string | undefined;
  /** The value of the flag where none follows it. */
  readonly implied?: string | undefined;
  /** On the command line, one flag may be followed by several numbers. */
  readonly list?: true | undefined;
  /** The rule for the default, where it is not one value. */
  readonly defaultText?: string | undefined;
}

/** All options of a call, with their defaults. */
export type Values = Readonly<Record<string, unknown>>;

/** A rule on all options together, where none by names says it. */
export interface Condition {
  readonly holds: (options: Values) => boolean;
  /** After "has no effect", where it does not hold: ``at `temperature` 0``. */
  readonly otherwise: string | ((options: Values) => string);
  /** After "Leave it out, or": what makes it have an effect. */
  readonly remedy: string;
  /** As the help says it: `for texts`. */
  readonly text?: string | undefined;
}

/** When an option has an effect; where it has none, giving it is an error. */
export interface OptionRules {
  /** Only with one of these options: given, or true by default. */
  readonly needs?: readonly string[] | undefined;
  /** Only where one of these options has one of these values: `{ loss: ['ctc'] }`. */
  readonly only?: Readonly<Record<string, readonly string[]>> | undefined;
  /** Not with any of these options. */
  readonly notWith?: readonly string[] | undefined;
  /** Not where one of these options has one of these values: `{ structure: ['auto'] }`. */
  readonly except?: Readonly<Record<string, readonly string[]>> | undefined;
  /** Says nothing without all of these options. */
  readonly requires?: readonly string[] | undefined;
  /** Only where all of these hold. */
  readonly when?: readonly Condition[] | undefined;
}

/** Defaults that depend on another option. */
export interface DefaultBy {
  readonly key: string;
  /** By its values; where there is none, the option stays open. */
  readonly defaults: Readonly<Record<string, unknown>>;
}

/** `given`: has to be given. `filled`: has a default. `open`: may be undefined. */
export type Presence = 'given' | 'filled' | 'open';

/** @typeParam P says in the types what `required` and `default` say in the data */
export interface Option<S extends Schema = Schema, P extends Presence = Presence>
  extends OptionRules {
  readonly schema: S;
  /** Never there; it carries the type. */
  readonly presence?: P | undefined;
  readonly required?: boolean | undefined;
  /** Between commands of ours, not for those who call the library. */
  readonly isInternal?: boolean | undefined;
  readonly default?: unknown;
  readonly defaultBy?: DefaultBy | undefined;
}

/** An option that the command line has, too. */
export interface Flag<S extends Schema = Schema, P extends Presence = Presence>
  extends Option<S, P>,
    OptionTexts {}

/** By the name in the library, camelCase; the command line has it in kebab-case. */
export type OptionTable = Readonly<Record<string, Option>>;

/** Arrays are only read. */
type Read<T> = T extends readonly unknown[] ? Readonly<T> : T;
type Input<O extends Option> = Read<v.InferInput<O['schema']>>;
type Output<O extends Option> = Read<v.InferOutput<O['schema']>>;
type PresenceIn<O extends Option> = O extends Option<Schema, infer P> ? P : never;

type KeysOf<T extends OptionTable, P extends Presence> = {
  [K in keyof T]: PresenceIn<T[K]> extends P ? K : never;
}[keyof T];

// Mapped over a parameter that extends `keyof T`, keys keep their doc comments.
type Given<T extends OptionTable, K extends keyof T> = { readonly [P in K]: Input<T[P]> };
type MayBeGiven<T extends OptionTable, K extends keyof T> = {
  readonly [P in K]?: Input<T[P]> | undefined;
};
type Known<T extends OptionTable, K extends keyof T> = { readonly [P in K]: Output<T[P]> };
type MayBeKnown<T extends OptionTable, K extends keyof T> = {
  readonly [P in K]: Output<T[P]> | undefined;
};

/** The options as a caller gives them. */
export type OptionsOf<T extends OptionTable> = Given<T, KeysOf<T, 'given'>> &
  MayBeGiven<T, KeysOf<T, 'filled' | 'open'>>;

/** The options checked, with their defaults. */
export type ResolvedOf<T extends OptionTable> = Known<T, KeysOf<T, 'given' | 'filled'>> &
  MayBeKnown<T, KeysOf<T, 'open'>>;

type Description<S extends Schema> = OptionTexts &
  OptionRules & {
    readonly required?: boolean | undefined;
    readonly default?: Read<v.InferInput<S>> | undefined;
  };

type PresenceOf<D> = D extends { readonly required: true }
  ? 'given'
  : D extends { readonly default: NonNullable<unknown> }
    ? 'filled'
    : 'open';

/** Describes an option that people and programs give. */
export function option<S extends Schema, const D extends Description<S>>(
  schema: S,
  description: D,
): Flag<S, PresenceOf<D>> {
  return { ...description, schema };
}

/** Describes an option that only programs give: no flag, no help. */
export function handler<
  S extends Schema,
  const D extends Pick<Description<S>, 'required' | 'default'> = Record<never, never>,
>(schema: S, description?: D): Option<S, PresenceOf<D>> {
  return { ...description, schema };
}

type Handlers<T extends OptionTable> = {
  readonly [K in keyof T]: T[K] extends Option<infer S> ? Option<S, 'open'> : never;
};

/** The options of a table for programs alone, where those without effect may be given. */
export function handlers<T extends OptionTable>(table: T): Handlers<T> {
  const entries = Object.entries(table).map(([key, { schema }]) => [key, handler(schema)]);
  return Object.fromEntries(entries) as Handlers<T>;
}

/** Describes an option that commands give one another. */
export function internal<S extends Schema>(schema: S): Option<S, 'open'> {
  return { schema, isInternal: true };
}

export function isFlag(option: Option): option is Flag {
  return 'summary' in option;
}

/** The option in other words, or under other rules. */
export function varied<S extends Schema, P extends Presence>(
  flag: Flag<S, P>,
  changes: Partial<OptionTexts> & OptionRules,
): Flag<S, P> {
  return { ...flag, ...changes };
}

/** The option as one that may be left out, here. */
export function optional<S extends Schema>(flag: Flag<S>): Flag<S, 'open'> {
  return { ...flag, required: false, default: undefined, presence: 'open' };
}

/** The same options, under more rules. Conditions of an option's own are narrower, and stay. */
export function restricted<T extends OptionTable>(table: T, rules: OptionRules): T {
  const entries = Object.entries(table).map(([key, option]) => {
    if (!isFlag(option)) return [key, option];
    const isNarrow = option.needs !== undefined || option.only !== undefined;
    const { needs, only } = isNarrow ? option : rules;
    const notWith = [...(option.notWith ?? []), ...(rules.notWith ?? [])];
    const when = [...(option.when ?? []), ...(rules.when ?? [])];
    return [key, { ...option, needs, only, notWith, when }];
  });
  return Object.fromEntries(entries) as T;
}
