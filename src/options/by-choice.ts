/** Options that come with a choice, as those of a loss. */
import type { OptionTable } from './option.js';

type All<U> = (U extends unknown ? (one: U) => void : never) extends (all: infer I) => void
  ? I
  : never;

type Bringing = Readonly<Record<string, { readonly options: OptionTable }>>;

/**
 * The options of all descriptors as one table. Each has an effect only with the choices that bring it:
 * with `blank` among the options of ctc alone, `{ loss: 'mse', blank: 3 }` is refused.
 * @param key the option that makes the choice
 * @param descriptors by the names that it chooses from; where several bring an option, it is one object
 */
export function optionsByChoice<const D extends Bringing>(
  key: string,
  descriptors: D,
): All<D[keyof D]['options']> & OptionTable {
  const names = Object.keys(descriptors);
  const table: Record<string, OptionTable[string]> = {};
  for (const { options } of Object.values(descriptors)) {
    for (const [name, option] of Object.entries(options)) {
      const having = names.filter((one) => name in descriptors[one]!.options);
      if (having.some((one) => descriptors[one]!.options[name] !== option)) {
        throw new Error(`${having.join(' and ')} describe ${name} differently`);
      }
      const isOfAll = having.length === names.length;
      table[name] = isOfAll ? option : { ...option, only: { [key]: having } };
    }
  }
  return table as All<D[keyof D]['options']> & OptionTable;
}
