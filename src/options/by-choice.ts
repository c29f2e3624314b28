/** Options that come with a choice, as those of a loss or an optimizer. */
import type { Flag, Option, OptionTable } from './option.js';

type All<U> = (U extends unknown ? (one: U) => void : never) extends (all: infer I) => void
  ? I
  : never;

type Bringing = Readonly<Record<string, { readonly options: OptionTable }>>;

/** Options that every choice brings stay what they were; the rest may be undefined: another choice may be made. */
type Brought<T extends OptionTable, Common extends PropertyKey> = {
  [K in keyof T]: K extends Common ? T[K] : T[K] extends Option<infer S> ? Flag<S, 'open'> : never;
};

type ByChoice<D extends Bringing> = All<
  { [N in keyof D]: Brought<D[N]['options'], keyof D[keyof D]['options']> }[keyof D]
>;

/** Things with a name, by their names. */
export function byName<const L extends readonly { readonly name: string }[]>(
  list: L,
): { readonly [One in L[number] as One['name']]: One } {
  return Object.fromEntries(list.map((one) => [one.name, one])) as {
    readonly [One in L[number] as One['name']]: One;
  };
}

/**
 * The options of all descriptors as one table. Each has an effect only with the choices that bring it:
 * with `blank` among the options of ctc alone, `{ loss: 'mse', blank: 3 }` is refused. Defaults are those of
 * the choice that is made.
 * @param key the option that makes the choice
 * @param descriptors by the names that it chooses from; where several bring an option, they differ in its
 * default at most
 */
export function optionsByChoice<const D extends Bringing>(
  key: string,
  descriptors: D,
): ByChoice<D> {
  const names = Object.keys(descriptors);
  const keys = new Set(names.flatMap((name) => Object.keys(descriptors[name]!.options)));
  const merged = [...keys].map((name) => {
    const having = names.filter((one) => name in descriptors[one]!.options);
    const options = having.map((one) => descriptors[one]!.options[name]!);
    if (options.some((one) => !areAlike(one, options[0]!))) {
      throw new Error(`${having.join(' and ')} describe ${name} differently`);
    }
    const defaults = Object.fromEntries(having.map((one, i) => [one, options[i]!.default]));
    const only = having.length === names.length ? undefined : { [key]: having };
    return [name, { ...options[0]!, default: undefined, defaultBy: { key, defaults }, only }];
  });
  return Object.fromEntries(merged) as ByChoice<D>;
}

/** Whether two descriptions say the same, but for the default. */
function areAlike(one: Option, other: Option): boolean {
  const parts = (option: Option) => Object.entries({ ...option, default: undefined });
  const theirs = new Map(parts(other));
  return (
    parts(one).length === theirs.size && parts(one).every(([key, part]) => theirs.get(key) === part)
  );
}
