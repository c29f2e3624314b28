/** Options that are still described in the command line's own way, as a table. */
import * as v from 'valibot';
import type { Flag, OptionTexts } from '../src/options/option.js';
import { choice, number, path, text, toggle } from '../src/options/schemas.js';

export interface LegacySpec extends OptionTexts {
  readonly type: 'boolean' | 'string' | 'path' | 'integer' | 'number';
  readonly choices?: readonly string[];
  readonly default?: string | number;
  readonly repeatable?: true;
  readonly values?: number;
  readonly required?: true;
  readonly onByDefault?: true;
}

export type LegacySpecs = Readonly<Record<string, LegacySpec>>;

type One<S extends LegacySpec> = S extends { choices: readonly (infer C)[] }
  ? C
  : S['type'] extends 'boolean'
    ? boolean
    : S['type'] extends 'integer' | 'number'
      ? number
      : string;

type Value<S extends LegacySpec> = S extends { repeatable: true } ? readonly One<S>[] : One<S>;

type Legacy<O extends LegacySpecs> = {
  readonly [K in keyof O]: Flag<
    v.GenericSchema<Value<O[K]>>,
    O[K] extends { required: true } ? 'given' : 'open'
  >;
};

export function legacy<const O extends LegacySpecs>(specs: O): Legacy<O> {
  return Object.fromEntries(
    Object.entries(specs).map(([key, spec]) => [key, flagOf(spec)]),
  ) as unknown as Legacy<O>;
}

function flagOf(spec: LegacySpec) {
  const { type, choices, default: value, repeatable, values, onByDefault, ...texts } = spec;
  const one = {
    boolean: toggle,
    string: text,
    path,
    number,
    integer: v.pipe(v.number(), v.safeInteger()),
  };
  const schema = choices ? choice(choices) : one[type];
  return {
    ...texts,
    schema: repeatable ? (values ? v.tuple([schema, schema]) : v.array(schema)) : schema,
    ...(value === undefined ? {} : { defaultText: String(value) }),
    ...(onByDefault ? { default: true } : {}),
  };
}
